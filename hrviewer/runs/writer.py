"""The run folder, written during inference.

Every finished request is one file in the journal, brought to the disk under another name and
renamed, so a killed run and a power cut lose at most the request in flight. A file that is damaged
or of another version of hrviewer is dropped, and its request computed again. Maps are painted from
finished requests in the plan's order; on resuming they are painted again from the journal, which
makes them equal bit for bit. A finished run keeps its maps, its table and ``run.json``; the journal
is deleted.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.checksum import UnfitCopyError
from hrviewer.claims import Claim
from hrviewer.engine import (
    Canvas,
    FinishedRequest,
    InferencePipeline,
    InferenceResult,
    RunRecord,
    deserialize,
    map_kind,
    serialize,
)
from hrviewer.engine.cost import QUANTITIES
from hrviewer.engine.preprocess import value_range
from hrviewer.errors import HrviewerError, RunError, WriteError
from hrviewer.folders import sync_tree
from hrviewer.geometry import Rect
from hrviewer.io.atomic_write import replace_file
from hrviewer.io.object_table import write_candidates
from hrviewer.io.ome_metadata import create_image
from hrviewer.models import ModelCard
from hrviewer.objects import merge_objects, tile_duplicates
from hrviewer.pyramid import Pyramid
from hrviewer.regions import Region
from hrviewer.runs.header import FORMAT_VERSION
from hrviewer.runs.leftovers import has_results
from hrviewer.runs.patch_table import patch_frame
from hrviewer.strategies import FeatureRequest, PatchRequest, Publish, WarpRequest

__all__ = [
    "RunFolderWriter",
    "reporting_disk_errors",
    "write_header",
]

log = logging.getLogger(__name__)

EMBEDDING_CHUNK = 64
"""Side of the chunks of the embeddings map, in cells; all numbers of a cell are in one chunk."""


MAX_IN_MEMORY = 1 << 22
"""Largest output map that is painted in memory and written when the run is saved."""


JOURNAL_NAME = re.compile(r"\d{6,}-[0-9a-f]+-\d+\.results")
"""Name of a request's file: number, digest, milliseconds until its end."""


def write_header(path: Path, header: dict[str, Any]) -> None:
    """Replace ``run.json`` in one step; bytes of a path that are no UTF-8 are escaped."""
    header = {"format_version": FORMAT_VERSION, **header}
    text = json.dumps(header, indent=1, ensure_ascii=False) + "\n"
    with reporting_disk_errors(path):
        replace_file(path / "run.json", text.encode("utf-8", "backslashreplace"))


@contextmanager
def reporting_disk_errors(path: Path) -> Iterator[None]:
    """Report a full or vanished disk as an error of one line."""
    try:
        yield
    except HrviewerError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            if not has_results(path):
                raise WriteError(
                    f"the disk of {path} is full, and nothing was computed yet: free some space, "
                    "and run it again"
                ) from error
            raise WriteError(
                f"the disk is full: the run was stopped and its results are saved in {path}; free "
                "some space and resume it"
            ) from error
        raise WriteError(f"the run cannot be written to {path}: {error}") from error


class RunFolderWriter:
    """The sink of one run; see `engine.Sink`.

    Parameters
    ----------
    path : Path
        The run's folder.
    pyramid : Pyramid
        The image.
    card : ModelCard
        Card of the answering model.
    stride : int
        Of ``main``, pixels of its input per output cell.
    native : float
        Native scale of ``main``, level-0 pixels per pixel of its input.
    region : Rect
        The area that the estimate covers.
    digest : callable
        Digest of a role's model: embeddings are of use only with their encoder.
    claim : Claim
        The claim on the folder, without which nothing is written.
    mask : Region, optional
        The part of the region that counts; all by default.

    Attributes
    ----------
    record : RunRecord
        Results and costs so far.
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
        claim: Claim,
        mask: Region | None = None,
    ) -> None:
        self.path, self.pyramid, self._digest, self._claim = path, pyramid, digest, claim
        self.journal = path / "journal"
        self._output: Any = None
        self._replaced, self._dropped = False, 0
        with reporting_disk_errors(path):
            self.journal.mkdir(parents=True, exist_ok=True)
            self._journaled = {
                int(file.name.split("-")[0]): file
                for file in sorted(self.journal.iterdir())
                if JOURNAL_NAME.fullmatch(file.name)
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
        self._card = card
        self._classes = card.output.classes if card.detects else None
        self._merging = card.merge_settings
        self.record = RunRecord(
            pyramid.rect,
            canvas,
            region,
            self._create_embeddings,
            keep_objects=self._classes is not None,
            mask=mask,
        )
        self._saved = time.monotonic()

    def _create_embeddings(self, role: str, width: int, cell: float) -> Canvas:
        """Create the map of embeddings, in half precision."""
        rows, columns = Canvas.shape(self.pyramid.rect, cell)
        common: dict[str, Any] = {"cell": cell, "pixel_size": self.pyramid.pixel_size}
        embeddings = create_image(
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
        return Canvas(self.pyramid.rect, cell, embeddings, _Plane(detail), "intensity")

    # engine.Sink

    def replay(self, number: int, name: str) -> FinishedRequest | None:
        """Return what was stored of a request."""
        file = self._journaled.get(number)
        if file is None:
            return None
        _, digest, *seconds = file.stem.split("-")
        if digest != name:
            if self._replaced:  # it followed from results that failed
                file.unlink()
                return None
            raise RunError(
                f"request {number} of the run in {self.path} differs: it was made with another "
                "version; start a new run with another --out"
            )
        try:
            results = tuple(deserialize(file.read_bytes()))
        except (OSError, UnfitCopyError) as error:
            log.warning("%s is dropped: %s", file, error)
            self._dropped += 1
            self._replaced = True
            del self._journaled[number]
            file.unlink(missing_ok=True)
            return None
        return FinishedRequest(results, int(seconds[0]) / 1000)

    def commit(
        self,
        number: int,
        name: str,
        request: PatchRequest | WarpRequest | FeatureRequest,
        finished: FinishedRequest,
        replayed: Container[int] = (),
    ) -> None:
        """Journal, then paint."""
        self._claim.require()
        with reporting_disk_errors(self.path):
            earlier = self._journaled.pop(number, None)
            self._replaced |= earlier is not None
            file = self.journal / f"{number:06d}-{name}-{round(1000 * finished.seconds)}.results"
            replace_file(file, serialize(finished.results))
            if earlier is not None and earlier != file:
                earlier.unlink(missing_ok=True)
            self.record.add(request, finished.results, replayed=replayed)
            if time.monotonic() - self._saved > 5:
                self.save()

    def restore(
        self,
        request: PatchRequest | WarpRequest | FeatureRequest,
        results: Sequence[InferenceResult],
    ) -> None:
        """Paint results of an earlier session."""
        with reporting_disk_errors(self.path):
            self.record.add(request, results, replayed=range(len(results)))

    def record_partial(
        self,
        request: PatchRequest | WarpRequest | FeatureRequest,
        results: Sequence[InferenceResult],
    ) -> None:
        """Paint results of a request that was stopped; they are not journaled."""
        with reporting_disk_errors(self.path):
            self.record.add(request, results)

    def publish(self, publication: Publish) -> None:
        """Record a map or an estimate that the strategy published."""
        self.record.publish(publication)

    # The folder.

    def save(self) -> None:
        """Write the current maps and the table of patches."""
        self._claim.require()
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
            table = patch_frame(record.patches, self._card)
            new = self.path / "patches.parquet.new"
            table.to_parquet(new, index=False)
            os.replace(new, self.path / "patches.parquet")
            if self._classes is not None:
                write_candidates(
                    self.path, record.candidates, self._classes, self._merging, record.region
                )
        self._saved = time.monotonic()

    def finish(self, header: dict[str, Any]) -> None:
        """Write everything; the journal of a complete run is deleted."""
        if self._classes is not None:
            self._uncount_duplicates()
        self.save()
        with reporting_disk_errors(self.path):
            if header["complete"]:  # from here on the maps and tables are the only copy
                sync_tree(self.path)
            write_header(self.path, header)
            if header["complete"]:
                shutil.rmtree(self.journal, ignore_errors=True)

    def journal_notes(self) -> list[str]:
        """Return a note where results of an earlier session could not be used."""
        if not self._dropped:
            return []
        found = f"{self._dropped} requests of the journal were damaged or of another version"
        return [f"{found} of hrviewer: they were computed again"]

    def object_notes(self, estimate: NDArray[np.float64] | None) -> list[str]:
        """Return a note where the estimate is of more objects than were found."""
        if self._classes is None or estimate is None:
            return []
        found = len(merge_objects(self.record.candidates, self._merging, self.record.region))
        total = float(estimate.sum())
        if abs(total - found) < 0.5:
            return []
        listed = f"{found:,} objects were found where inference ran, and are listed"
        return [f"{listed}; the estimate of {total:,.1f} is for the whole region"]

    def _uncount_duplicates(self) -> None:
        """Take objects that two neighbouring tiles counted off the map once."""
        canvas = self.record.output
        twice = tile_duplicates(self.record.candidates, self._merging)
        rows, columns = np.floor(twice.centers / canvas.cell).astype(np.intp).T
        for at in zip(twice.class_ids.tolist(), rows.tolist(), columns.tolist(), strict=True):
            canvas.values[at] -= 1


class _Plane:
    """A single-channel array without its channel axis."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __getitem__(self, index: tuple[slice, slice]) -> Any:
        return self._array[(0, *index)]

    def __setitem__(self, index: tuple[slice, slice], values: Any) -> None:
        self._array[(0, *index)] = values


def engine_settings(pipeline: InferencePipeline) -> dict[str, Any]:
    """Return the settings that a resumed run must share, to be equal bit for bit."""
    main = pipeline.models["main"]
    return {
        "device": main.device,
        "backend": main.backend,
        "precision": main.precision,
        "batch": pipeline.device.batch,
        "streams": pipeline.device.streams,
        "value_range": list(value_range(main.card, pipeline.pyramid)),
    }
