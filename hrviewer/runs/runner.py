"""Running one strategy on one image, from its choice to its folder."""

from __future__ import annotations

import platform
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_cache_path, user_data_path
from pydantic import ValidationError

from hrviewer.engine import (
    Budget,
    Control,
    Device,
    Hints,
    Looker,
    Networks,
    Record,
    ResultCache,
    Watch,
    build_scene,
    checked,
    drive,
    fingerprints,
    how_far_off,
    speaker,
    streams_here,
)
from hrviewer.errors import UserError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import Truth
from hrviewer.io.ground_truth import read_region
from hrviewer.models import Card, Pack, open_pack
from hrviewer.models.memory_usage import forget_peak, peak_memory
from hrviewer.pyramid import Pyramid, open_pyramid
from hrviewer.runs.estimates import describe
from hrviewer.runs.evaluation import find_judge
from hrviewer.runs.priors import as_hints
from hrviewer.runs.run import Run
from hrviewer.runs.writer import RunWriter, looker_settings, read_header, write_header
from hrviewer.strategies import Answer, Params, Scene, Strategy, get_strategy

__all__ = ["Job", "parse_params", "run"]


def run(
    image: object,
    model: str | Path | Pack = "nuclei",
    strategy: str | Strategy = "patches",
    *,
    region: Rect | Sequence[int] | str | Path | None = None,
    budget: str | Budget | None = None,
    seed: int = 0,
    hints: Mapping[str, Any] | None = None,
    device: str = "auto",
    precision: str = "float32",
    cache: Literal["use", "off"] = "use",
    out: str | Path | None = None,
    resume: bool = False,
    truth: str | Path | Truth | None = None,
    watch: Watch | None = None,
    control: Control | None = None,
    **params: Any,
) -> Run:
    """Run a strategy on an image and return what it saw and spent.

    Parameters
    ----------
    image : object
        Whatever `hrviewer.open` takes.
    model : str, Path or Pack
        A pack's name, its folder, or a network's file with its card beside it.
    strategy : str or Strategy
        Its id; see ``hrviewer strategies``.
    region : Rect, sequence of int, or path, optional
        ``(y, x, h, w)`` in level-0 pixels, or a file around whose shapes it lies; the whole image
        by default.
    budget : str, optional
        ``2TFLOP``, ``30s`` or ``500patches``; the strategy's own default otherwise.
    seed : int
        Of whatever the strategy draws at random.
    hints : mapping, optional
        What the strategy is told beforehand, by name; see `as_hints`.
    device : str
        ``auto``, ``cpu``, ``cuda[:n]`` or ``mps``.
    precision : {"float32", "bfloat16", "int8"}
        Numbers that networks compute in. Another than float32 is compared with it on this image,
        and what that gave is a note of the run.
    cache : {"use", "off"}
        Whether results of earlier runs are served.
    out : path, optional
        The run's folder, ``NAME.run.zarr``; in the user's data folder by default.
    resume : bool
        Go on with the run in `out`.
    truth : str, Path or Truth, optional
        What the answer is measured against: ``auto`` for a scene's own, or a file; see
        `hrviewer.io.ground_truth`.
    watch : callable, optional
        Told of looks, maps and progress as they come; on this thread.
    control : Control, optional
        To pause and stop from another thread.
    **params
        The strategy's parameters.

    Returns
    -------
    Run

    Raises
    ------
    UserError
        If anything asked for cannot be done; one line says what to do.
    """
    with open_pyramid(image) as pyramid:
        pack = model if isinstance(model, Pack) else open_pack(model)
        chosen = get_strategy(strategy) if isinstance(strategy, str) else strategy
        judge = find_judge(truth, pyramid, pack.roles.get(chosen.speaker(pack.roles)))
        job = Job(
            pyramid,
            pack,
            chosen,
            parse_params(chosen, params),
            region=region_on(pyramid, region),
            budget=Budget.parse(budget) if isinstance(budget, str) else budget,
            seed=seed,
            hints=checked(chosen, as_hints(hints or {})),
        )
        worker = Device(streams=streams_here())
        store = result_cache() if cache == "use" else None
        try:
            done = job.run(
                Networks(pack, worker, device, precision),
                out=Path(out) if out else None,
                resume=resume,
                cache=store,
                watch=watch,
                control=control,
            )
        finally:
            worker.close()
        if judge is not None:
            done.judged(judge(done))
        return done


def region_on(pyramid: Pyramid, region: Rect | Sequence[int] | str | Path | None) -> Rect | None:
    """Return a region of an image: a rectangle, or what a file's shapes lie in."""
    if isinstance(region, str | Path):
        return read_region(region, pyramid.path or pyramid.name, pyramid.shape)
    return region if region is None or isinstance(region, Rect) else Rect(*region)


def parse_params(strategy: Strategy, values: Mapping[str, Any]) -> Params:
    """Return a strategy's parameters.

    Raises
    ------
    UserError
        If one is unknown or out of range.
    """
    try:
        return strategy.Params(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = ", ".join(strategy.Params.model_fields)
            raise UserError(f"{strategy.id} has no parameter {name!r}; it has: {known}") from None
        raise UserError(f"{strategy.id}: {name}: {first['msg']}") from None


@cache
def result_cache() -> ResultCache:
    """Return the results that this machine has already computed."""
    return ResultCache(user_cache_path("hrviewer") / "looks.sqlite")


@dataclass
class Job:
    """What was chosen: an image, a pack, a strategy and how to run it.

    The window prepares jobs and runs them on a thread; `run` does both at once.
    """

    pyramid: Pyramid
    pack: Pack
    strategy: Strategy
    params: Params
    region: Rect | None = None
    budget: Budget | None = None
    seed: int = 0
    hints: Hints = field(default_factory=dict)

    def default_path(self) -> Path:
        """Return a folder that does not exist yet, in the user's data folder."""
        folder = user_data_path("hrviewer") / "runs"
        stem = re.sub(r"[^\w.-]+", "_", Path(self.pyramid.name).stem) or "image"
        base = f"{stem}-{self.strategy.id}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        number = 1
        path = folder / f"{base}.run.zarr"
        while path.exists():
            number += 1
            path = folder / f"{base}-{number}.run.zarr"
        return path

    def run(
        self,
        networks: Networks,
        *,
        out: Path | None = None,
        resume: bool = False,
        cache: ResultCache | None = None,
        watch: Watch | None = None,
        control: Control | None = None,
    ) -> Run:
        """Carry the job out and return its run; see `run`."""
        path = out or self.default_path()
        if not path.name.endswith(".run.zarr"):
            raise UserError(f"a run's folder is called NAME.run.zarr, not {path.name!r}")
        earlier = self._earlier(path, resume)
        networks = networks.on(self.pyramid)
        if earlier is not None and earlier["complete"]:
            self._must_match(earlier, path, networks, None)
            return Run(path)
        rate = earlier["rate"] if earlier else None
        scene, notes, rate = build_scene(
            self.pyramid,
            networks,
            self.strategy,
            region=self.region,
            budget=self.budget,
            rate=rate,
            seed=self.seed,
            hints=self.hints,
        )
        if earlier is not None:
            networks.device.batch = earlier["engine"]["batch"]
            networks.device.streams = earlier["engine"].get("streams", 1)
        looker = Looker(
            self.pyramid,
            networks,
            networks.device,
            scene.region,
            cache=cache,
            control=control,
        )
        if earlier is not None:
            self._must_match(earlier, path, networks, looker)
        main, card = networks["main"], speaker(networks, self.strategy).card
        off = how_far_off(self.pyramid, networks, scene)
        notes = [*notes, *([str(off)] if off else [])]
        writer = RunWriter(
            path,
            self.pyramid,
            card,
            main.stride,
            scene.native,
            scene.region,
            lambda role: networks[role].digest,
        )
        header = {
            **self._identity(scene),
            "engine": looker_settings(looker),
            "rate": rate,
            "networks": {role: networks[role].digest for role in self.strategy.roles},
            "notes": notes,
            "started": earlier["started"] if earlier else datetime.now(UTC).isoformat(),
            "versions": versions(),
            "run": str(path),
            "device": main.device,
            "precision": off.json() if off else None,
            "truth": None,
        }
        forget_peak()
        start = time.perf_counter()
        partial = {**header, **self._result(writer.record, None, scene, card, networks, 0.0)}
        write_header(path, {**partial, "complete": False})
        answer: Answer | None = None
        try:
            answer = drive(
                self.strategy.plan(scene, self.params),
                looker,
                writer,
                budget=scene.budget,
                watch=watch,
            )
        finally:
            spent = time.perf_counter() - start
            saved = looker.meter.saved
            result = self._result(writer.record, answer, scene, card, networks, spent, saved)
            header["networks"] = {
                role: networks[role].digest for role in {row.role for row in writer.record.patches}
            } or header["networks"]
            # Networks that only the policy asked for may have needed a stand-in.
            notes += [note for note in networks.notes if note not in notes]
            header["notes"] = [*notes, answer.note] if answer and answer.note else notes
            if sys.exc_info()[0] is None:
                writer.finish({**header, **result})
            else:
                # What was seen stays, whatever happened; the first error is the one to tell.
                with suppress(UserError):
                    writer.finish({**header, **result})
                refused = isinstance(sys.exc_info()[1], UserError) and not writer.record.patches
                if refused and earlier is None:  # nothing was looked at: nothing is left in the way
                    shutil.rmtree(path, ignore_errors=True)
        return Run(path)

    def _identity(self, scene: Scene) -> dict[str, Any]:
        """Return what makes two runs the same run."""
        return {
            "image": image_of(self.pyramid),
            "region": list(scene.region.astuple()),
            "model": self.pack.name,
            "strategy": self.strategy.id,
            "params": self.params.model_dump(exclude_defaults=True),
            "seed": self.seed,
            "hints": fingerprints(self.hints),
            "budget": str(self.budget) if self.budget else None,
        }

    def _earlier(self, path: Path, resume: bool) -> dict[str, Any] | None:
        if not path.exists():
            if resume:
                raise UserError(f"there is no run to resume in {path}; run without --resume")
            return None
        if not resume:
            raise UserError(f"{path} exists: resume it with --resume, or choose another --out")
        if not (path / "run.json").exists() and not (path / "journal").exists():
            raise UserError(f"{path} is not a run folder; choose another --out")
        if not (path / "run.json").exists():
            # Killed before its first line was written: nothing was seen.
            shutil.rmtree(path)
            return None
        return read_header(path)

    def _must_match(
        self, earlier: dict[str, Any], path: Path, networks: Networks, looker: Looker | None
    ) -> None:
        """Refuse to go on with another image, network, strategy or machine than it began with."""
        region = self.region & self.pyramid.rect if self.region else self.pyramid.rect
        checks: dict[str, tuple[Any, Any]] = {
            "image": (earlier["image"]["fingerprint"], self.pyramid.fingerprint),
            "plane": (earlier["image"]["plane"], self.pyramid.plane),
            "channels": (
                earlier["image"]["channels"],
                self.pyramid.selected and list(self.pyramid.selected),
            ),
            "region": (earlier["region"], list(region.astuple())),
            "strategy": (earlier["strategy"], self.strategy.id),
            "parameters": (earlier["params"], self.params.model_dump(exclude_defaults=True)),
            "seed": (earlier["seed"], self.seed),
            "hint": (earlier.get("hints", {}), fingerprints(self.hints)),
            "budget": (earlier["budget"], str(self.budget) if self.budget else None),
        }
        # Only what had looked by then is named: a policy may never have asked `main`.
        for role, digest in earlier["networks"].items():
            now = networks[role].digest if role in networks else None
            checks[f"network as {role}"] = digest, now
        if looker is not None:
            checks["engine"] = (earlier["engine"], looker_settings(looker))
        for name, (was, now) in checks.items():
            if was != now:
                raise UserError(
                    f"{path} was begun with another {name} ({was}, now {now}): start anew with "
                    "another --out"
                )

    def _result(
        self,
        record: Record,
        answer: Answer | None,
        scene: Scene,
        card: Card,
        networks: Networks,
        wall: float,
        saved: float = 0.0,
    ) -> dict[str, Any]:
        """Return what the run came to so far."""
        ledger = record.ledger
        estimate = answer.estimate if answer else record.estimate
        interval = answer.interval if answer else record.interval
        total = ledger.total
        return {
            "complete": answer is not None,
            "estimate": describe(card, estimate, interval, scene.region, scene.pixel_size),
            "cost": {
                "flops": total.flops,
                # What came from memory, the cache or the journal counts what it once took.
                "wall_s": wall + saved + total.seconds - ledger.spent.seconds,
                "read_s": total.read_s,
                "prepare_s": total.prepare_s,
                "infer_s": total.infer_s,
                "post_s": total.post_s,
                "bytes_read": round(total.bytes),
                "pixels_read": round(total.pixels),
                "peak_rss_bytes": peak_memory(),
                "peak_device_bytes": None,
            },
            "spent": {"flops": ledger.spent.flops, "wall_s": wall},
            "setup_s": networks.setup_s,
            "patches": record.counts(),
        }


def image_of(pyramid: Pyramid) -> dict[str, Any]:
    """Return what a run remembers of its image."""
    return {
        "path": pyramid.path or pyramid.name,
        "shape": list(pyramid.shape),
        "levels": len(pyramid.levels),
        "pixel_size": pyramid.pixel_size and list(pyramid.pixel_size),
        "fingerprint": pyramid.fingerprint,
        "plane": pyramid.plane,
        "channels": pyramid.selected and list(pyramid.selected),
    }


@cache
def versions() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    names = ("hrviewer", "numpy", "tifffile", "imagecodecs", "zarr")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: version(name) for name in names},
    }
