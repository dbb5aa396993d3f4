"""Writing a run while it goes on.

Every finished request is one file in the journal, written beside its place and renamed, so a
killed run loses at most the request in flight. Maps are painted from finished requests in the
plan's order; on resuming they are painted anew from the journal, which makes them equal bit for
bit. A finished run keeps its maps, its table and ``run.json``; the journal goes.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hrviewer.engine import (
    Canvas,
    InferencePipeline,
    InferenceResult,
    PatchRow,
    RunRecord,
    deserialize,
    map_kind,
    serialize,
)
from hrviewer.engine.cost import QUANTITIES
from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.io.ome_metadata import create_image
from hrviewer.models import ModelCard
from hrviewer.pyramid import Pyramid
from hrviewer.strategies import FeatureRequest, PatchRequest, Publish, WarpRequest

__all__ = ["RunWriter", "read_header", "write_header"]

EMBEDDING_CHUNK = 64
"""Side of the chunks in which codes are kept, in cells; all of a code is in one."""


MAX_IN_MEMORY = 1 << 22
"""Numbers that are painted in memory, and written when the run is saved: the journal has them."""


def read_header(path: Path) -> dict[str, Any]:
    """Return a run folder's ``run.json``.

    Raises
    ------
    UserError
        If it is not a run folder.
    """
    try:
        header: dict[str, Any] = json.loads((path / "run.json").read_text("utf-8"))
        if "strategy" not in header:
            raise ValueError("no strategy is named in it")
        return header
    except FileNotFoundError:
        raise HrviewerError(f"{path} is not a run folder: it holds no run.json") from None
    except (OSError, ValueError) as error:
        raise HrviewerError(f"{path} is not a readable run folder: {error}") from None


def write_header(path: Path, header: dict[str, Any]) -> None:
    """Replace ``run.json`` in one step."""
    new = path / "run.json.new"
    new.write_text(json.dumps(header, indent=1, ensure_ascii=False) + "\n", "utf-8")
    os.replace(new, path / "run.json")


@contextmanager
def reporting_disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or vanished disk into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HrviewerError(
                f"the disk is full: the run was stopped and what was seen is kept in {path}; free "
                "some space and resume it"
            ) from error
        raise HrviewerError(f"the run cannot be written to {path}: {error}") from error


class RunWriter:
    """The sink of one run; see `engine.Sink`.

    Parameters
    ----------
    path : Path
        The run's folder.
    pyramid : Pyramid
        What is looked at.
    card : Card
        Of ``main``.
    stride : int
        Of ``main``.
    native : float
        Its native scale.
    region : Rect
        What the run speaks of.
    digest : callable
        What a role's network is known by: codes are good for nothing without their encoder.

    Attributes
    ----------
    record : Record
        What was seen and spent so far.
    """

    def __init__(
        self,
        path: Path,
        pyramid: Pyramid,
        card: ModelCard,
        stride: int,
        native: float,
        region: Rect,
        digest: Callable[[str], str],
    ) -> None:
        self.path, self.pyramid, self._digest = path, pyramid, digest
        self.journal = path / "journal"
        self._output: Any = None
        with reporting_disk_errors(path):
            self.journal.mkdir(parents=True, exist_ok=True)
            self._journaled = {
                int(file.name.split("-")[0]): file for file in self.journal.glob("*-*.npz")
            }
            cell = stride * native
            rows, columns = Canvas.shape(pyramid.rect, cell)
            common: dict[str, Any] = {"cell": cell, "pixel_size": pyramid.pixel_size}
            values = create_image(
                path / "output",
                (card.prediction_channels, rows, columns),
                name="output",
                labels=card.output.classes or ["output"] if card.task != "embedding" else [],
                **common,
            )
            kind = map_kind(card)
            if values.size <= MAX_IN_MEMORY:
                self._output = values
                canvas = Canvas.in_memory(pyramid.rect, cell, card.prediction_channels, kind)
            else:
                detail = create_image(
                    self.journal / "detail", (1, rows, columns), name="detail", **common
                )
                canvas = Canvas(pyramid.rect, cell, values, _Plane(detail), kind)
        self.record = RunRecord(pyramid.rect, canvas, region, self._create_embeddings)
        self._saved = time.monotonic()

    def _create_embeddings(self, role: str, width: int, cell: float) -> Canvas:
        """Return where codes are kept, in half precision."""
        rows, columns = Canvas.shape(self.pyramid.rect, cell)
        common: dict[str, Any] = {"cell": cell, "pixel_size": self.pyramid.pixel_size}
        codes = create_image(
            self.path / "embeddings",
            (width, rows, columns),
            name="embeddings",
            dtype=np.float16,
            chunk=EMBEDDING_CHUNK,
            depth=width,
            attributes={"role": role, "encoder": self._digest(role)},
            **common,
        )
        detail = create_image(
            self.journal / "embeddings-detail", (1, rows, columns), name="detail", **common
        )
        return Canvas(self.pyramid.rect, cell, codes, _Plane(detail), "intensity")

    # engine.Sink

    def replay(self, number: int, name: str) -> Sequence[InferenceResult] | None:
        """Return a finished request's looks."""
        file = self._journaled.get(number)
        if file is None:
            return None
        if file.stem.split("-")[1] != name:
            raise HrviewerError(
                f"the run in {self.path} asked for something else at request {number}: it was made "
                "with another version; start anew without resuming"
            )
        return deserialize(file.read_bytes())

    def commit(
        self,
        number: int,
        name: str,
        request: PatchRequest | WarpRequest | FeatureRequest,
        seen: Sequence[InferenceResult],
    ) -> None:
        """Journal, then paint."""
        with reporting_disk_errors(self.path):
            new = self.journal / "new"
            try:
                new.write_bytes(serialize(seen))
                os.replace(new, self.journal / f"{number:06d}-{name}.npz")
            except OSError:
                new.unlink(missing_ok=True)
                raise
            self.record.add(request, seen)
            if time.monotonic() - self._saved > 5:
                self.save()

    def restore(
        self, request: PatchRequest | WarpRequest | FeatureRequest, seen: Sequence[InferenceResult]
    ) -> None:
        """Paint what an earlier session saw."""
        with reporting_disk_errors(self.path):
            self.record.add(request, seen, replayed=True)

    def record_partial(
        self, request: PatchRequest | WarpRequest | FeatureRequest, seen: Sequence[InferenceResult]
    ) -> None:
        """Paint what came of a request that was stopped; the journal knows nothing of it."""
        with reporting_disk_errors(self.path):
            self.record.add(request, seen)

    def publish(self, publication: Publish) -> None:
        """Record what the strategy published."""
        self.record.publish(publication)

    # The folder.

    def save(self) -> None:
        """Write the maps and the table as they stand."""
        record = self.record
        with reporting_disk_errors(self.path):
            common: dict[str, Any] = {
                "cell": record.cost_map.cell,
                "pixel_size": self.pyramid.pixel_size,
            }
            saliency = create_image(
                self.path / "saliency", record.saliency.values.shape, name="saliency", **common
            )
            saliency[:] = record.saliency.values
            if self._output is not None:
                self._output[:] = record.output.values
            cost = create_image(
                self.path / "cost",
                record.cost_map.values.shape,
                name="cost",
                dtype=np.float64,
                labels=QUANTITIES,
                attributes={
                    "quantities": list(QUANTITIES),
                    "unattributed": [getattr(record.cost_map.unattributed, q) for q in QUANTITIES],
                },
                **common,
            )
            cost[:] = record.cost_map.values
            table = pd.DataFrame(
                [{name: getattr(row, name) for name in row.__slots__} for row in record.patches],
                columns=list(PatchRow.__slots__),
            )
            new = self.path / "patches.parquet.new"
            table.to_parquet(new, index=False)
            os.replace(new, self.path / "patches.parquet")
        self._saved = time.monotonic()

    def finish(self, header: dict[str, Any]) -> None:
        """Write everything; a complete run needs its journal no more."""
        self.save()
        with reporting_disk_errors(self.path):
            write_header(self.path, header)
            if header["complete"]:
                shutil.rmtree(self.journal)


class _Plane:
    """The one plane of a three-dimensional array, as a two-dimensional one."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __getitem__(self, index: tuple[slice, slice]) -> Any:
        return self._array[(0, *index)]

    def __setitem__(self, index: tuple[slice, slice], values: Any) -> None:
        self._array[(0, *index)] = values


def engine_settings(pipeline: InferencePipeline) -> dict[str, Any]:
    """Return what a resumed run must share with this one, to be equal bit for bit."""
    main = pipeline.models["main"]
    return {
        "device": main.device,
        "backend": main.backend,
        "precision": main.precision,
        "batch": pipeline.device.batch,
        "streams": pipeline.device.streams,
    }
