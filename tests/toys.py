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

from hrviewer.engine import (
    Canvas,
    DeviceScheduler,
    InferencePipeline,
    InferenceResult,
    LoadedModels,
    RunControl,
    RunRecord,
    ViewportCell,
    build_context,
    map_kind,
)
from hrviewer.geometry import Grid, Patch, Rect
from hrviewer.models import ModelBundle, ModelCard, Network
from hrviewer.pyramid import Pyramid, open_pyramid
from hrviewer.strategies import (
    Estimate,
    FeatureRequest,
    Params,
    PatchRequest,
    Plan,
    PlanContext,
    Publish,
    Strategy,
    WarpRequest,
    aggregate,
    batches,
    tiles,
)

STRIDE = 4
FLOPS = 100.0


def card(name: str, **output: Any) -> ModelCard:
    """Return a density card with a 64-pixel tile."""
    return ModelCard.model_validate(
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
        self.accepts_any_size = True
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

    accepts_tokens = True

    def run_tokens(
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

    def token_flops(self, n: int, merge: float = 0.0) -> float:
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

    def run_features(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        self.looked += 1
        return 16 * features[:1]

    def feature_flops(self, d: int, gh: int, gw: int) -> float:
        return 2.0 * d * gh * gw


class ToyBundle(ModelBundle):
    """A pack of networks that are already there."""

    def __init__(self, **networks: Network) -> None:
        super().__init__("toys", {role: (Path(role), net.card) for role, net in networks.items()})
        self.networks = networks

    def load(self, role: str = "main", device: str = "auto", threads: int | None = None) -> Network:
        return self.networks[role]


def toy_bundle(main: Network | None = None) -> ToyBundle:
    """Return a pack with every role."""
    return ToyBundle(
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

    def __init__(self, policy: Callable[[PlanContext], Plan]) -> None:
        self.policy = policy
        self.id = self.title = policy.__name__  # type: ignore[misc]

    def plan(self, context: PlanContext, params: Params) -> Plan:
        return self.policy(context)


def many_patches(scene: PlanContext) -> Plan:
    """Cutting into patches: rounds of many."""
    seen: list[Any] = []
    for asked in batches(tiles(scene.main, scene.region, 1.0, tile=32), 7):
        result = yield PatchRequest("main", asked, target="output")
        seen += result.results
        if result.stop:
            break
        yield Publish("estimate", aggregate(scene.main, seen), scene.region)
    return Estimate(aggregate(scene.main, seen))


def overview_then_chosen(scene: PlanContext) -> Plan:
    """Selective zooming: a scout's overview, then its best patches in order, stopping early."""
    cells = tiles(scene.models["scout"], scene.region, 8.0, tile=8)
    scout = yield PatchRequest("scout", tuple(cells), target="saliency")
    best = sorted(scout.results, key=lambda handle: -handle.value[0])[:6]
    total, values = 0.0, [float(handle.value[0]) for handle in best]
    chosen = tuple(Patch(handle.patch.core, 1.0) for handle in best)
    for patch, score in zip(chosen, values, strict=True):
        result = yield PatchRequest(
            "main", (patch,), target="output", order="given", scores=(score,)
        )
        if result.stop or total > 1e3:
            break
        total += float(np.nansum([handle.value for handle in result.results]))
    return Estimate(np.array([total]), interval=(total - 1, total + 1))


def quadtree(scene: PlanContext) -> Plan:
    """Recursive zooming on the entropy of each node."""
    nodes = [(scene.region, 4.0)]
    total = 0.0
    while nodes:
        result = yield PatchRequest(
            "@entropy", tuple(Patch(r, s) for r, s in nodes), target="saliency"
        )
        if result.stop:
            break
        deeper = [
            (child, s / 2)
            for (r, s), handle in zip(nodes, result.results, strict=True)
            if s > 1 and handle.value[0] > 1
            for child in Grid(r, max(16, -(-max(r.h, r.w) // 2 // 16) * 16))
        ]
        leaves = tuple(Patch(r, s) for r, s in nodes if not deeper)
        nodes = deeper
        if leaves:
            done = yield PatchRequest("main", leaves, target="output")
            total += float(np.nansum([handle.value for handle in done.results]))
    return Estimate(np.array([total]))


def warped(scene: PlanContext) -> Plan:
    """Non-uniform downsampling: one warp that magnifies the middle."""
    t = np.linspace(0, 1, 9)
    bent = t + 0.1 * np.sin(2 * np.pi * t)
    grid = np.stack(np.meshgrid(bent, bent, indexing="ij"), axis=-1)
    result = yield WarpRequest("main", scene.region, grid, (64, 64), target="output")
    if result.stop:
        return Estimate(None, note="too dear")
    return Estimate(result.results[0].value)


def tokens(scene: PlanContext) -> Plan:
    """High-resolution transformers: joint groups of tokens of two sizes."""
    cells = list(Grid(scene.region, 64))
    small = [
        (i, Patch(c, c.h / 16))
        for i, r in enumerate(cells)
        for c in Grid(r, 32)
        if r.h == r.w == 64
    ]
    result = yield PatchRequest(
        "transformer",
        tuple(patch for _, patch in small),
        target="output",
        group=tuple(group for group, _ in small),
    )
    return Estimate(np.array([np.nansum([handle.value for handle in result.results])]))


def features_then_head(scene: PlanContext) -> Plan:
    """Task-oriented compression: encode every patch, then think twice about the codes."""
    result = yield PatchRequest(
        "encoder", tuple(tiles(scene.models["encoder"], scene.region, 1.0, tile=32))
    )
    if result.stop or not result.results:
        return Estimate(None)
    thought = yield FeatureRequest("head", result.results, scene.region, target="output")
    if thought.stop:
        return Estimate(None)
    again = yield FeatureRequest("head", result.results, scene.region, target="saliency")
    return Estimate(thought.results[0].value if not again.stop else None)


def scan_then_heavy(scene: PlanContext) -> Plan:
    """Scanner networks: every pixel cheaply, the heavy network where flagged."""
    result = yield PatchRequest(
        "scanner",
        tuple(tiles(scene.models["scanner"], scene.region, 2.0, tile=32)),
        target="output",
    )
    flagged = [h.patch.core for h in result.results if not h.value[0] < 100]
    if not flagged or result.stop:
        return Estimate(aggregate(scene.main, result.results))
    heavy = yield PatchRequest("main", tuple(Patch(core, 1.0) for core in flagged), target="output")
    better = {handle.patch.core: handle for handle in heavy.results}
    return Estimate(aggregate(scene.main, [better.get(h.patch.core, h) for h in result.results]))


POLICIES = [
    many_patches,
    overview_then_chosen,
    quadtree,
    warped,
    tokens,
    features_then_head,
    scan_then_heavy,
]


# A run in memory.


def empty_record(pyramid: Pyramid, models: LoadedModels, native_scale: float) -> RunRecord:
    """Return a record in memory."""
    main = models["main"]
    canvas = Canvas.in_memory(
        pyramid.rect, main.stride * native_scale, main.card.prediction_channels, map_kind(main.card)
    )
    return RunRecord(pyramid.rect, canvas)


def paint_cell(cell: ViewportCell, record: RunRecord) -> None:
    """Add a finished cell to a record of the whole image."""
    for request, results in cell.results:
        record.add(request, results)
    for publication in cell.published:
        if publication.kind == "saliency":
            record.publish(publication)


def collect_cells(cells: list[ViewportCell]) -> Callable[[int, Rect, Any], None]:
    """Return an `on_update` that appends the finished cells to a list."""

    def on_update(number: int, rect: Rect, update: Any) -> None:
        if isinstance(update, ViewportCell):
            cells.append(update)

    return on_update


class RecordingSink:
    """A sink that records, and replays what it was given; it can pull the plug."""

    def __init__(
        self, record: RunRecord, journal: dict[int, tuple[str, list[InferenceResult]]] | None = None
    ):
        self.record = record
        self.journal = {} if journal is None else journal
        self.commits = 0
        self.die_after: int | None = None

    def replay(self, number: int, name: str) -> Sequence[InferenceResult] | None:
        if number not in self.journal:
            return None
        assert self.journal[number][0] == name, "the plan is not deterministic"
        return self.journal[number][1]

    def commit(
        self, number: int, name: str, request: Any, results: Sequence[InferenceResult]
    ) -> None:
        if self.commits == self.die_after:
            raise KeyboardInterrupt
        self.commits += 1
        self.journal[number] = name, list(results)
        self.record.add(request, results)

    def restore(self, request: Any, results: Sequence[InferenceResult]) -> None:
        self.record.add(request, results, replayed=True)

    def record_partial(self, request: Any, results: Sequence[InferenceResult]) -> None:
        self.record.add(request, results)

    def publish(self, publication: Publish) -> None:
        self.record.publish(publication)


class Workbench:
    """Everything around a policy: an image, a pack, a device."""

    def __init__(
        self, image: NDArray[Any] | Pyramid, pack: ModelBundle | None = None, batch: int = 1
    ) -> None:
        self.pyramid = image if isinstance(image, Pyramid) else open_pyramid(image)
        self.pack = pack or toy_bundle()
        self.device = DeviceScheduler(batch)
        self.networks = LoadedModels(self.pack, self.device)

    def __enter__(self) -> Workbench:
        return self

    def __exit__(self, *args: object) -> None:
        self.device.close()

    def run(
        self,
        policy: Callable[[PlanContext], Plan],
        *,
        sink: RecordingSink | None = None,
        budget: float = float("inf"),
        region: Rect | None = None,
        control: RunControl | None = None,
        watch: Any = None,
        cache: Any = None,
        focus: Any = None,
    ) -> tuple[Estimate | None, RunRecord, InferencePipeline]:
        """Carry a policy out and return its answer, what was recorded, and the looker."""
        from hrviewer.engine import run_plan

        scene, _, _ = build_context(self.pyramid, self.networks, Toy(policy), region=region)
        looker = InferencePipeline(
            self.pyramid,
            self.networks,
            self.device,
            scene.region,
            cache=cache,
            control=control,
            focus=focus,
        )
        sink = sink or RecordingSink(empty_record(self.pyramid, self.networks, scene.native_scale))
        scene = type(scene)(
            scene.shape,
            scene.downsamples,
            scene.pixel_size,
            scene.region,
            scene.native_scale,
            scene.models,
            budget,
        )
        answer = run_plan(policy(scene), looker, sink, budget=budget, on_event=watch)
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
