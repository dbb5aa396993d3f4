"""Networks whose predictions are known in closed form, and toy policies of the seven families.

`Bright` counts: its density is the sum of red over each 4 × 4 block, over 255, so the count of any
rectangle is the sum of its pixels. `Blurred` needs 16 pixels around each block, so halos matter.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from hrviewer.engine import (
    Canvas,
    DeviceScheduler,
    FinishedRequest,
    InferencePipeline,
    InferenceResult,
    LoadedModels,
    RunClock,
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
    """Sum red over 4 × 4 blocks; incomplete rows and columns are dropped."""
    n, _, h, w = x.shape
    red = x[:, :1, : h // 4 * 4, : w // 4 * 4].astype(np.float64)
    return red.reshape(n, 1, h // 4, 4, w // 4, 4).sum((3, 5)).astype(np.float32)


class Bright(Network):
    """Predicts brightness; can be made to fail, to wait, or to run out of memory."""

    def __init__(self, name: str = "bright", **output: Any) -> None:
        super().__init__(card(name, **output), name, "toy", "cpu")
        self.accepts_any_size = True
        self.calls = 0
        self.inferred = 0
        self.before: Callable[[NDArray[Any]], None] = lambda batch: None

    def _run(self, batch: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        self.calls += 1
        self.inferred += len(batch)
        self.before(batch)
        return [self.predict(batch)]

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return blocks(batch)

    def _count(self, h: int, w: int) -> float:
        return FLOPS * h * w


class Blurred(Bright):
    """The same after a mean over 33 × 33 pixels, so that a halo of 16 is needed."""

    def __init__(self, name: str = "blurred") -> None:
        super().__init__(name, halo=16)

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return blocks(uniform_filter(batch.astype(np.float64), (0, 0, 33, 33), mode="constant"))


class Joint(Bright):
    """Predicts for each token the mean of its sum and of the group's mean."""

    accepts_tokens = True

    def run_tokens(
        self,
        tokens: NDArray[np.float32],
        boxes: NDArray[Any],
        lengths: Sequence[int] | None = None,
        merge: float = 0.0,
    ) -> NDArray[np.float32]:
        self.inferred += len(tokens)
        own = tokens[:, 0].sum((1, 2))
        groups = np.split(own, np.cumsum(lengths or len(own))[:-1])
        shared = np.concatenate([0.5 * group + 0.5 * group.mean() for group in groups])
        return shared[:, None, None, None]

    def token_flops(self, n: int, merge: float = 0.0) -> float:
        return 10.0 * n + n * n


class Encoder(Bright):
    """An embedding of every 4 × 4 pixels: the means of the colours."""

    def __init__(self, name: str = "encoder") -> None:
        super().__init__(name, task="embedding", classes=[], width=3)

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.concatenate([blocks(batch[:, i : i + 1]) / 16 for i in range(3)], axis=1)


class Head(Bright):
    """A density from embeddings, one cell each: the sum of red."""

    def __init__(self, name: str = "head") -> None:
        super().__init__(name, stride=1)
        self.period = 1

    def run_features(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        self.inferred += 1
        return 16 * features[:1]

    def feature_flops(self, d: int, gh: int, gw: int) -> float:
        return 2.0 * d * gh * gw


class ToyBundle(ModelBundle):
    """A model bundle of given networks."""

    def __init__(self, **networks: Network) -> None:
        super().__init__("toys", {role: (Path(role), net.card) for role, net in networks.items()})
        self.networks = networks

    def load(self, role: str = "main", device: str = "auto", threads: int | None = None) -> Network:
        return self.networks[role]


def toy_bundle(main: Network | None = None) -> ToyBundle:
    """Return a model bundle with every role."""
    return ToyBundle(
        main=main or Bright(),
        scout=Bright("scout"),
        scanner=Bright("scanner"),
        encoder=Encoder(),
        head=Head("head"),
        transformer=Joint("transformer", tile=16),
    )


# One policy for each family.


class Toy(Strategy):
    """A strategy from a policy function."""

    family: ClassVar[str] = "toy"
    when: ClassVar[str] = "in tests"
    Params = Params

    def __init__(self, policy: Callable[[PlanContext], Plan]) -> None:
        self.policy = policy
        self.id = self.title = policy.__name__  # type: ignore[misc]

    def plan(self, context: PlanContext, params: Params) -> Plan:
        return self.policy(context)


def many_patches(context: PlanContext) -> Plan:
    """Cutting into patches: batches of many."""
    results: list[Any] = []
    for batch in batches(tiles(context.main, context.region, 1.0, tile=32), 7):
        response = yield PatchRequest("main", batch, target="output")
        results += response.results
        if response.stop:
            break
        yield Publish("estimate", aggregate(context.main, results), context.region)
    return Estimate(aggregate(context.main, results))


def overview_then_chosen(context: PlanContext) -> Plan:
    """Selective zooming: a scout's overview, then its best patches in order, stopping early."""
    cells = tiles(context.models["scout"], context.region, 8.0, tile=8)
    scout = yield PatchRequest("scout", tuple(cells), target="saliency")
    best = sorted(scout.results, key=lambda result: -result.value[0])[:6]
    total, values = 0.0, [float(result.value[0]) for result in best]
    chosen = tuple(Patch(result.patch.core, 1.0) for result in best)
    for patch, score in zip(chosen, values, strict=True):
        response = yield PatchRequest(
            "main", (patch,), target="output", order="given", scores=(score,)
        )
        if response.stop or total > 1e3:
            break
        total += float(np.nansum([result.value for result in response.results]))
    return Estimate(np.array([total]), interval=(total - 1, total + 1))


def quadtree(context: PlanContext) -> Plan:
    """Recursive zooming on the entropy of each node."""
    nodes = [(context.region, 4.0)]
    total = 0.0
    while nodes:
        response = yield PatchRequest(
            "@entropy", tuple(Patch(r, s) for r, s in nodes), target="saliency"
        )
        if response.stop:
            break
        deeper = [
            (child, s / 2)
            for (r, s), result in zip(nodes, response.results, strict=True)
            if s > 1 and result.value[0] > 1
            for child in Grid(r, max(16, -(-max(r.h, r.w) // 2 // 16) * 16))
        ]
        leaves = tuple(Patch(r, s) for r, s in nodes if not deeper)
        nodes = deeper
        if leaves:
            leaf_response = yield PatchRequest("main", leaves, target="output")
            total += float(np.nansum([result.value for result in leaf_response.results]))
    return Estimate(np.array([total]))


def warped(context: PlanContext) -> Plan:
    """Non-uniform downsampling: one warp that magnifies the middle."""
    t = np.linspace(0, 1, 9)
    bent = t + 0.1 * np.sin(2 * np.pi * t)
    grid = np.stack(np.meshgrid(bent, bent, indexing="ij"), axis=-1)
    response = yield WarpRequest("main", context.region, grid, (64, 64), target="output")
    if response.stop:
        return Estimate(None, note="too expensive")
    return Estimate(response.results[0].value)


def tokens(context: PlanContext) -> Plan:
    """High-resolution transformers: joint groups of tokens of two sizes."""
    cells = list(Grid(context.region, 64))
    small = [
        (i, Patch(c, c.h / 16))
        for i, r in enumerate(cells)
        for c in Grid(r, 32)
        if r.h == r.w == 64
    ]
    response = yield PatchRequest(
        "transformer",
        tuple(patch for _, patch in small),
        target="output",
        group=tuple(group for group, _ in small),
    )
    return Estimate(np.array([np.nansum([result.value for result in response.results])]))


def features_then_head(context: PlanContext) -> Plan:
    """Task-oriented compression: encode every patch, then run the head twice on the embeddings."""
    response = yield PatchRequest(
        "encoder", tuple(tiles(context.models["encoder"], context.region, 1.0, tile=32))
    )
    if response.stop or not response.results:
        return Estimate(None)
    first = yield FeatureRequest("head", response.results, context.region, target="output")
    if first.stop:
        return Estimate(None)
    second = yield FeatureRequest("head", response.results, context.region, target="saliency")
    return Estimate(first.results[0].value if not second.stop else None)


def scan_then_heavy(context: PlanContext) -> Plan:
    """Scanner networks: every pixel cheaply, the heavy network where flagged."""
    response = yield PatchRequest(
        "scanner",
        tuple(tiles(context.models["scanner"], context.region, 2.0, tile=32)),
        target="output",
    )
    flagged = [h.patch.core for h in response.results if not h.value[0] < 100]
    if not flagged or response.stop:
        return Estimate(aggregate(context.main, response.results))
    heavy = yield PatchRequest("main", tuple(Patch(core, 1.0) for core in flagged), target="output")
    better = {result.patch.core: result for result in heavy.results}
    return Estimate(
        aggregate(context.main, [better.get(h.patch.core, h) for h in response.results])
    )


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
    """A sink in memory that records and replays requests; it can interrupt the run."""

    def __init__(
        self, record: RunRecord, journal: dict[int, tuple[str, FinishedRequest]] | None = None
    ):
        self.record = record
        self.journal = {} if journal is None else journal
        self.commits = 0
        self.die_after: int | None = None

    def replay(self, number: int, name: str) -> FinishedRequest | None:
        if number not in self.journal:
            return None
        assert self.journal[number][0] == name, "the plan is not deterministic"
        return self.journal[number][1]

    def commit(
        self,
        number: int,
        name: str,
        request: Any,
        finished: FinishedRequest,
        replayed: Container[int] = (),
    ) -> None:
        if self.commits == self.die_after:
            raise KeyboardInterrupt
        self.commits += 1
        self.journal[number] = name, finished
        self.record.add(request, finished.results, replayed=replayed)

    def restore(self, request: Any, results: Sequence[InferenceResult]) -> None:
        self.record.add(request, results, replayed=range(len(results)))

    def record_partial(self, request: Any, results: Sequence[InferenceResult]) -> None:
        self.record.add(request, results)

    def publish(self, publication: Publish) -> None:
        self.record.publish(publication)


class Workbench:
    """An image, a model bundle and a device to run policies with."""

    def __init__(
        self, image: NDArray[Any] | Pyramid, bundle: ModelBundle | None = None, batch: int = 1
    ) -> None:
        self.pyramid = image if isinstance(image, Pyramid) else open_pyramid(image)
        self.bundle = bundle or toy_bundle()
        self.device = DeviceScheduler(batch)
        self.models = LoadedModels(self.bundle, self.device)

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
        on_event: Any = None,
        cache: Any = None,
        focus: Any = None,
        clock: RunClock | None = None,
    ) -> tuple[Estimate | None, RunRecord, InferencePipeline]:
        """Run a policy; return its estimate, the record and the pipeline."""
        from hrviewer.engine import run_plan

        context, _, _ = build_context(self.pyramid, self.models, Toy(policy), region=region)
        pipeline = InferencePipeline(
            self.pyramid,
            self.models,
            self.device,
            context.region,
            cache=cache,
            control=control,
            focus=focus,
        )
        sink = sink or RecordingSink(empty_record(self.pyramid, self.models, context.native_scale))
        context = type(context)(
            context.shape,
            context.downsamples,
            context.pixel_size,
            context.region,
            context.native_scale,
            context.models,
            budget,
            seconds=math.inf if clock is None else clock.limit,
        )
        estimate = run_plan(
            policy(context), pipeline, sink, budget=budget, clock=clock, on_event=on_event
        )
        return estimate, sink.record, pipeline


def threads() -> set[str]:
    """Return the names of hrviewer's threads that are alive.

    Those of an array are left out: they may belong to another test's, not yet collected.
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


def write_thin_model(path: Path) -> Path:
    """Write a 1 × 1 convolution to 32 maps and their sum, whose memory grows faster than its work.

    Its card is written next to it.
    """
    from onnx import helper, numpy_helper, save_model

    weights = {"a": np.ones((32, 1, 1, 1), np.float32), "b": np.ones((1, 32, 1, 1), np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "a"], ["m"]),
            helper.make_node("Relu", ["m"], ["r"]),
            helper.make_node("Conv", ["r", "b"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", 1, ("n", 1, "h", "w"))],
        [helper.make_tensor_value_info("y", 1, ("n", 1, "h", "w"))],
        [numpy_helper.from_array(w, name) for name, w in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    save_model(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    about = card("thin", channels="gray", stride=1).model_dump(mode="json", exclude_none=True)
    path.with_suffix(".json").write_text(json.dumps(about))
    return path
