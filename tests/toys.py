"""Networks whose answers are known in closed form, and toy policies of the seven families' shapes.

`Bright` counts: its density is the sum of red over each 4 × 4 block, over 255, so the count of any
rectangle is the sum of its pixels. `Blurred` sees 16 pixels around each block, so halos matter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from hrviewer.engine import Control, Device, Looker, Networks, Record, Seen, empty_record
from hrviewer.engine.plan_setup import build_scene
from hrviewer.geometry import Grid, Patch, Rect
from hrviewer.models import Card, Network, Pack
from hrviewer.pyramid import Pyramid, open_pyramid
from hrviewer.strategies import (
    Answer,
    Look,
    Params,
    Plan,
    Scene,
    Show,
    Strategy,
    Think,
    Warp,
    aggregate,
    rounds,
    tiles,
)

STRIDE = 4
FLOPS = 100.0


def card(name: str, **output: Any) -> Card:
    """Return a density card with a 64-pixel tile."""
    return Card.model_validate(
        {
            "name": name,
            "task": output.pop("task", "density"),
            "input": {
                "channels": output.pop("channels", "rgb"),
                "scale": 1 / 255,
                "mean": [0.0],
                "std": [1.0],
                "tile": output.pop("tile", 64),
                "multiple_of": 4,
            },
            "output": {"stride": STRIDE, "halo": 0, "classes": ["thing"]} | output,
        }
    )


def blocks(x: NDArray[Any]) -> NDArray[np.float32]:
    """Sum red over 4 × 4 blocks; rows and columns that fill no block are dropped."""
    n, _, h, w = x.shape
    red = x[:, :1, : h // 4 * 4, : w // 4 * 4].astype(np.float64)
    return red.reshape(n, 1, h // 4, 4, w // 4, 4).sum((3, 5)).astype(np.float32)


class Bright(Network):
    """Counts brightness; can be made to fail, to wait, or to lack memory."""

    def __init__(self, name: str = "bright", **output: Any) -> None:
        super().__init__(card(name, **output), name, "toy", "cpu")
        self.elastic = True
        self.calls = 0
        self.looked = 0
        self.before: Callable[[NDArray[Any]], None] = lambda batch: None

    def _run(self, batch: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        self.calls += 1
        self.looked += len(batch)
        self.before(batch)
        return [self.see(batch)]

    def see(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return blocks(batch)

    def _count(self, h: int, w: int) -> float:
        return FLOPS * h * w


class Blurred(Bright):
    """The same after a mean over 33 × 33 pixels, so that a halo of 16 is needed."""

    def __init__(self, name: str = "blurred") -> None:
        super().__init__(name, halo=16)

    def see(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return blocks(uniform_filter(batch.astype(np.float64), (0, 0, 33, 33), mode="constant"))


class Joint(Bright):
    """Says of each token its own sum and its share of the group's."""

    joint = True

    def join(
        self,
        tokens: NDArray[np.float32],
        boxes: NDArray[Any],
        lengths: Sequence[int] | None = None,
        merge: float = 0.0,
    ) -> NDArray[np.float32]:
        self.looked += len(tokens)
        own = tokens[:, 0].sum((1, 2))
        groups = np.split(own, np.cumsum(lengths or len(own))[:-1])
        shared = np.concatenate([0.5 * group + 0.5 * group.mean() for group in groups])
        return shared[:, None, None, None]

    def join_flops(self, n: int, merge: float = 0.0) -> float:
        return 10.0 * n + n * n


class Encoder(Bright):
    """Three numbers for every 4 × 4 pixels: means of the colours."""

    def __init__(self, name: str = "encoder") -> None:
        super().__init__(name, task="embedding", classes=[], width=3)

    def see(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.concatenate([blocks(batch[:, i : i + 1]) / 16 for i in range(3)], axis=1)


class Head(Bright):
    """A density from codes, one cell each: red's sum."""

    def __init__(self, name: str = "head") -> None:
        super().__init__(name, stride=1)
        self.period = 1

    def think(self, codes: NDArray[np.float32]) -> NDArray[np.float32]:
        self.looked += 1
        return 16 * codes[:1]

    def think_flops(self, d: int, gh: int, gw: int) -> float:
        return 2.0 * d * gh * gw


class ToyPack(Pack):
    """A pack of networks that are already there."""

    def __init__(self, **networks: Network) -> None:
        super().__init__("toys", {role: (Path(role), net.card) for role, net in networks.items()})
        self.networks = networks

    def load(self, role: str = "main", device: str = "auto", threads: int | None = None) -> Network:
        return self.networks[role]


def toy_pack(main: Network | None = None) -> ToyPack:
    """Return a pack with every role."""
    return ToyPack(
        main=main or Bright(),
        scout=Bright("scout"),
        scanner=Bright("scanner"),
        encoder=Encoder(),
        head=Head("head"),
        transformer=Joint("transformer", tile=16),
    )


# One policy for each family's shape.


class Toy(Strategy):
    """A strategy made of a function."""

    family: ClassVar[str] = "toy"
    when: ClassVar[str] = "in tests"
    Params = Params

    def __init__(self, policy: Callable[[Scene], Plan]) -> None:
        self.policy = policy
        self.id = self.title = policy.__name__  # type: ignore[misc]

    def plan(self, scene: Scene, params: Params) -> Plan:
        return self.policy(scene)


def many_patches(scene: Scene) -> Plan:
    """Cutting into patches: rounds of many."""
    seen: list[Any] = []
    for asked in rounds(tiles(scene.main, scene.region, 1.0, tile=32), 7):
        result = yield Look("main", asked, into="output")
        seen += result.handles
        if result.stop:
            break
        yield Show("estimate", aggregate(scene.main, seen), scene.region)
    return Answer(aggregate(scene.main, seen))


def overview_then_chosen(scene: Scene) -> Plan:
    """Selective zooming: a scout's overview, then its best patches in order, stopping early."""
    cells = tiles(scene.roles["scout"], scene.region, 8.0, tile=8)
    scout = yield Look("scout", tuple(cells), into="saliency")
    best = sorted(scout.handles, key=lambda handle: -handle.value[0])[:6]
    total, values = 0.0, [float(handle.value[0]) for handle in best]
    chosen = tuple(Patch(handle.patch.core, 1.0) for handle in best)
    for patch, score in zip(chosen, values, strict=True):
        result = yield Look("main", (patch,), into="output", order="given", scores=(score,))
        if result.stop or total > 1e3:
            break
        total += float(np.nansum([handle.value for handle in result.handles]))
    return Answer(np.array([total]), interval=(total - 1, total + 1))


def quadtree(scene: Scene) -> Plan:
    """Recursive zooming on the entropy of each node."""
    nodes = [(scene.region, 4.0)]
    total = 0.0
    while nodes:
        result = yield Look("@entropy", tuple(Patch(r, s) for r, s in nodes), into="saliency")
        if result.stop:
            break
        deeper = [
            (child, s / 2)
            for (r, s), handle in zip(nodes, result.handles, strict=True)
            if s > 1 and handle.value[0] > 1
            for child in Grid(r, max(16, -(-max(r.h, r.w) // 2 // 16) * 16))
        ]
        leaves = tuple(Patch(r, s) for r, s in nodes if not deeper)
        nodes = deeper
        if leaves:
            done = yield Look("main", leaves, into="output")
            total += float(np.nansum([handle.value for handle in done.handles]))
    return Answer(np.array([total]))


def warped(scene: Scene) -> Plan:
    """Non-uniform downsampling: one warp that magnifies the middle."""
    t = np.linspace(0, 1, 9)
    bent = t + 0.1 * np.sin(2 * np.pi * t)
    grid = np.stack(np.meshgrid(bent, bent, indexing="ij"), axis=-1)
    result = yield Warp("main", scene.region, grid, (64, 64), into="output")
    if result.stop:
        return Answer(None, note="too dear")
    return Answer(result.handles[0].value)


def tokens(scene: Scene) -> Plan:
    """High-resolution transformers: joint groups of tokens of two sizes."""
    cells = list(Grid(scene.region, 64))
    small = [
        (i, Patch(c, c.h / 16))
        for i, r in enumerate(cells)
        for c in Grid(r, 32)
        if r.h == r.w == 64
    ]
    result = yield Look(
        "transformer",
        tuple(patch for _, patch in small),
        into="output",
        group=tuple(group for group, _ in small),
    )
    return Answer(np.array([np.nansum([handle.value for handle in result.handles])]))


def codes_then_think(scene: Scene) -> Plan:
    """Task-oriented compression: encode every patch, then think twice about the codes."""
    result = yield Look("encoder", tuple(tiles(scene.roles["encoder"], scene.region, 1.0, tile=32)))
    if result.stop or not result.handles:
        return Answer(None)
    thought = yield Think("head", result.handles, scene.region, into="output")
    if thought.stop:
        return Answer(None)
    again = yield Think("head", result.handles, scene.region, into="saliency")
    return Answer(thought.handles[0].value if not again.stop else None)


def scan_then_heavy(scene: Scene) -> Plan:
    """Scanner networks: every pixel cheaply, the heavy network where flagged."""
    result = yield Look(
        "scanner", tuple(tiles(scene.roles["scanner"], scene.region, 2.0, tile=32)), into="output"
    )
    flagged = [h.patch.core for h in result.handles if not h.value[0] < 100]
    if not flagged or result.stop:
        return Answer(aggregate(scene.main, result.handles))
    heavy = yield Look("main", tuple(Patch(core, 1.0) for core in flagged), into="output")
    better = {handle.patch.core: handle for handle in heavy.handles}
    return Answer(aggregate(scene.main, [better.get(h.patch.core, h) for h in result.handles]))


POLICIES = [
    many_patches,
    overview_then_chosen,
    quadtree,
    warped,
    tokens,
    codes_then_think,
    scan_then_heavy,
]


# A run in memory.


class Kept:
    """A sink that records, and replays what it was given; it can pull the plug."""

    def __init__(self, record: Record, journal: dict[int, tuple[str, list[Seen]]] | None = None):
        self.record = record
        self.journal = {} if journal is None else journal
        self.commits = 0
        self.die_after: int | None = None

    def replay(self, number: int, name: str) -> Sequence[Seen] | None:
        if number not in self.journal:
            return None
        assert self.journal[number][0] == name, "the plan is not deterministic"
        return self.journal[number][1]

    def commit(self, number: int, name: str, request: Any, seen: Sequence[Seen]) -> None:
        if self.commits == self.die_after:
            raise KeyboardInterrupt
        self.commits += 1
        self.journal[number] = name, list(seen)
        self.record.add(request, seen)

    def restore(self, request: Any, seen: Sequence[Seen]) -> None:
        self.record.add(request, seen, replayed=True)

    def leave(self, request: Any, seen: Sequence[Seen]) -> None:
        self.record.add(request, seen)

    def show(self, show: Show) -> None:
        self.record.show(show)


class Bench:
    """Everything around a policy: an image, a pack, a device."""

    def __init__(
        self, image: NDArray[Any] | Pyramid, pack: Pack | None = None, batch: int = 1
    ) -> None:
        self.pyramid = image if isinstance(image, Pyramid) else open_pyramid(image)
        self.pack = pack or toy_pack()
        self.device = Device(batch)
        self.networks = Networks(self.pack, self.device)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *args: object) -> None:
        self.device.close()

    def run(
        self,
        policy: Callable[[Scene], Plan],
        *,
        sink: Kept | None = None,
        budget: float = float("inf"),
        region: Rect | None = None,
        control: Control | None = None,
        watch: Any = None,
        cache: Any = None,
        focus: Any = None,
    ) -> tuple[Answer | None, Record, Looker]:
        """Carry a policy out and return its answer, what was recorded, and the looker."""
        from hrviewer.engine import drive

        scene, _, _ = build_scene(self.pyramid, self.networks, Toy(policy), region=region)
        looker = Looker(
            self.pyramid,
            self.networks,
            self.device,
            scene.region,
            cache=cache,
            control=control,
            focus=focus,
        )
        sink = sink or Kept(empty_record(self.pyramid, self.networks, scene.native))
        scene = type(scene)(
            scene.shape,
            scene.downsamples,
            scene.pixel_size,
            scene.region,
            scene.native,
            scene.roles,
            budget,
        )
        answer = drive(policy(scene), looker, sink, budget=budget, watch=watch)
        return answer, sink.record, looker


def threads() -> set[str]:
    """Return the names of hrviewer's threads that are alive.

    Those of an array are left out: it may be another test's, that nobody has collected yet.
    """
    names = {thread.name for thread in threading.enumerate()}
    return {name for name in names if name.startswith("hrviewer") and "-chunk" not in name}


def picture(h: int = 200, w: int = 260, seed: int = 0) -> NDArray[np.uint8]:
    """Return noise on a gradient, RGB."""
    rng = np.random.default_rng(seed)
    base = np.linspace(0, 120, w)[None, :, None] + rng.integers(0, 100, (h, w, 3))
    return base.astype(np.uint8)


def flatten(groups: Iterable[Iterable[Any]]) -> list[Any]:
    """Return the items of all groups."""
    return [item for group in groups for item in group]
