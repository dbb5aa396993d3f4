"""A batch of images: submitted, retried, stopped and resumed, with a row for each."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from hrviewer.batch.cluster import Workers, check_place, connect
from hrviewer.batch.image_list import ImageEntry, list_entries
from hrviewer.batch.report import write_batch_file
from hrviewer.batch.results_table import ResultsTable, Row
from hrviewer.batch.settings import STOP_FILE, BatchSettings, EngineSettings
from hrviewer.batch.totals import folder_totals
from hrviewer.claims import claim
from hrviewer.errors import (
    HrviewerError,
    ParameterError,
    RunError,
    format_error,
    short_message,
    validation_error,
    write_error,
)
from hrviewer.io.atomic_write import replace_file
from hrviewer.models import no_model_error
from hrviewer.paths import data_folder
from hrviewer.runs.settings import merge_params

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client, Future

__all__ = ["Batch", "batch"]

OnRow = Callable[[Row], None]

CLAIMED_DELAY_S = 5.0
"""Seconds before another attempt at an image."""


class Batch:
    """A batch that is running, or has run.

    Iteration gives the rows as images are finished, in order of completion, and ends with the
    batch.

    Parameters
    ----------
    entries : sequence of ImageEntry
        The images.
    settings : BatchSettings
        What is the same for all.
    folder : Path
        Where runs, tables and exports are written.
    places : mapping
        Arguments of `connect`: where it runs.
    retries : int
        Further attempts at an image whose worker ended, or whose error may pass.
    on_error : {"skip", "stop"}
        Whether the batch goes on after an image that failed.

    Attributes
    ----------
    folder : Path
        As given.
    """

    def __init__(
        self,
        entries: Sequence[ImageEntry],
        settings: BatchSettings,
        folder: Path,
        places: Mapping[str, Any],
        *,
        retries: int = 2,
        on_error: Literal["skip", "stop"] = "skip",
    ) -> None:
        self.folder = folder
        self._entries, self._settings, self._places = list(entries), settings, dict(places)
        self._retries, self._on_error = retries, on_error
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._finished: list[Row] = []
        self._error: HrviewerError | None = None
        self._over = False
        self._results: ResultsTable | None = None
        self._client: Client | None = None
        self._stack = ExitStack()
        self._open_folder()
        self._thread = threading.Thread(target=self._run, name="hrviewer-batch", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        states = self.table["status"].value_counts().to_dict()
        counts = ", ".join(f"{number} {state}" for state, number in states.items())
        return f"<Batch of {len(self._entries)} images: {counts}>"

    def __iter__(self) -> Iterator[Row]:
        number = 0
        while (row := self._wait_for(number)) is not None:
            number += 1
            yield row
        if self._error is not None:
            raise self._error

    def _wait_for(self, number: int) -> Row | None:
        """Return the row of the image that was finished as this one; None if it has ended."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._finished) > number or self._over)
            return self._finished[number] if len(self._finished) > number else None

    @property
    def table(self) -> pd.DataFrame:
        """The rows of all images, as far as they are known; see docs/batch.md for the columns."""
        assert self._results is not None
        with self._changed:
            return self._results.frame

    @property
    def failed(self) -> pd.DataFrame:
        """The rows of the images that failed."""
        table = self.table
        return table[table["status"] == "failed"]

    @property
    def totals(self) -> pd.DataFrame:
        """What the images of each folder give together; see `hrviewer.batch.folder_totals`."""
        return folder_totals(self.table)

    def write_report(self, path: str | Path) -> Path:
        """Write the rows so far to one file; see `hrviewer.batch.write_batch_file`."""
        return write_batch_file(self.table, Path(path))

    @property
    def complete(self) -> bool:
        """Whether every image is done."""
        return bool((self.table["status"] == "done").all())

    @property
    def stopped(self) -> bool:
        """Whether it was stopped before its end."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Stop after the current batch of inputs of each worker; the same call resumes it."""
        self._stopping.set()
        with suppress(OSError):  # those that are asked below stop without it
            (self.folder / STOP_FILE).touch()
        client = self._client
        if client is not None:
            from hrviewer.batch.worker import stop_batch

            try:
                client.run(stop_batch, on_error="ignore")
            except Exception:  # it ended meanwhile
                return

    def wait(self) -> Batch:
        """Wait until it has ended.

        Raises
        ------
        HrviewerError
            If it could not run at all.
        """
        for _ in self:
            pass
        self._thread.join()
        return self

    def _open_folder(self) -> None:
        """Claim the folder, read what is known of its images, and check that it is this batch's."""
        try:
            (self.folder / "runs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self.folder, error) from None
        self._stack.enter_context(claim(self.folder, "batch", self.folder))
        self._stack.callback(self._remove_stop_file)
        try:
            self._remove_stop_file()
            self._engine = self._read_engine()
            self._results = ResultsTable(self.folder, self._entries)
            self._results.write()
        except BaseException:
            self._stack.close()
            raise

    def _remove_stop_file(self) -> None:
        with suppress(OSError):
            (self.folder / STOP_FILE).unlink()

    def _read_engine(self) -> EngineSettings | None:
        """Return how the networks of an earlier part of the batch ran; None if there is none."""
        file = self.folder / "batch.json"
        try:
            found = json.loads(file.read_text("utf-8"))
            digest, engine = found["digest"], found["engine"]
            earlier = EngineSettings(**engine)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            raise RunError(f"{file} is damaged: choose another --out") from None
        if digest != self._settings.digest:
            raise RunError(f"{self.folder} holds a batch with other settings: choose another --out")
        return earlier

    def _run(self) -> None:
        try:
            with self._stack, connect(**self._places) as workers:
                self._client = workers.client
                self._run_on(workers)
        except HrviewerError as error:
            self._error = error
        except Exception as error:
            self._error = RunError(f"the batch ended: {short_message(error)}; run it again")
            self._error.__cause__ = error
        finally:
            self._client = None
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _run_on(self, workers: Workers) -> None:
        from hrviewer.batch.worker import WorkerState, measure_engine

        client = workers.client
        client.register_plugin(
            WorkerState(
                self._settings.digest,
                workers.cores,
                workers.devices,
                low_priority=workers.low_priority,
            )
        )
        if self._engine is None:
            model = self._settings.model or self._entries[0].model
            settings = self._settings.model_copy(update={"model": model})
            self._engine = client.submit(
                measure_engine, settings, workers.cores, pure=False
            ).result()
            self._write_settings(self._engine)
        self._collect(workers, self._engine)

    def _write_settings(self, engine: EngineSettings) -> None:
        record = {
            "digest": self._settings.digest,
            "settings": self._settings.model_dump(),
            "engine": engine.model_dump(),
        }
        try:
            replace_file(self.folder / "batch.json", json.dumps(record, indent=1).encode())
        except OSError as error:
            raise write_error(self.folder, error) from None

    def _collect(self, workers: Workers, engine: EngineSettings) -> None:
        """Submit all images, and take their rows as they come."""
        from distributed import as_completed

        from hrviewer.batch.worker import run_image

        def submit(entry: ImageEntry) -> Future:
            return workers.client.submit(
                run_image,
                str(self.folder),
                self._settings,
                engine,
                entry,
                elsewhere=workers.elsewhere,
                pure=False,
            )

        running = {submit(entry): (entry, 1) for entry in self._entries}
        if self._stopping.is_set():  # it was stopped before there were workers to stop
            self.stop()
        completed = as_completed(list(running), raise_errors=False)
        for future in completed:
            entry, attempt = running.pop(future)
            row = row_of(future)
            again = row.pop("retry", False) and attempt <= self._retries
            if again and not self._stopping.is_set():
                self._stopping.wait(CLAIMED_DELAY_S if attempt > 1 else 0.0)
                retried = submit(entry)
                running[retried] = entry, attempt + 1
                completed.add(retried)
                continue
            self._record(entry, {**row, "attempts": attempt})
            if row["status"] == "failed" and self._on_error == "stop":
                self.stop()

    def _record(self, entry: ImageEntry, row: Row) -> None:
        assert self._results is not None
        with self._changed:
            earlier = self._results.rows[entry.key]
            if earlier["status"] == row["status"] == "done" and earlier["run"] == row["run"]:
                row = earlier | {"error": row.get("error")}
            elif earlier["status"] == "done" and row["status"] == "stopped":
                row = earlier  # stopped before it began: what was done stays so
            self._finished.append(self._results.update(entry, row))
            self._changed.notify_all()


def row_of(future: Future) -> Row:
    """Return the row of an image; of one whose worker ended, one to try again."""
    if future.status == "finished":
        return dict(future.result())
    if future.status == "cancelled":
        raise RunError("the scheduler has ended: run the same command again to go on")
    error = future.exception()
    message = format_error(error) if isinstance(error, HrviewerError) else (
        f"its worker ended: {short_message(error)}"
    )  # fmt: skip
    return {"status": "failed", "error": message, "retry": True}


def batch(
    images: object,
    model: str | Path | None = None,
    strategy: str = "patches",
    *,
    region: str | None = None,
    tissue: str = "off",
    budget: str | None = None,
    seed: int = 0,
    truth: str | Path | None = None,
    precision: Literal["float32", "bfloat16", "int8"] = "float32",
    cache: Literal["use", "off"] = "use",
    trust: bool = False,
    exports: Sequence[str] = (),
    recursive: bool = False,
    out: str | Path | None = None,
    workers: int | None = None,
    cores: int | None = None,
    devices: Sequence[str] = (),
    scheduler: str | None = None,
    cluster: str | Path | None = None,
    client: Client | None = None,
    low_priority: bool = False,
    retries: int = 2,
    on_error: Literal["skip", "stop"] = "skip",
    params: Mapping[str, Any] | None = None,
    **more_params: Any,
) -> Batch:
    """Run a strategy on many images, each in a run folder of its own.

    The batch begins at once, in the background. A call with the same settings goes on where an
    earlier one stopped: complete runs are kept, others resumed.

    Parameters
    ----------
    images : path, URL, or a sequence of them
        Images, folders, patterns and tables of images; see `list_entries`.
    model : str or Path
        Name, file or folder of a model. There is no default, but a table may name one per image.
    strategy : str
        A strategy's id.
    region, tissue, budget, seed, truth, precision, cache
        As `hrviewer.run` takes them; a region as ``y,x,h,w`` or a file.
    trust : bool
        Whether model files that can run code are opened.
    exports : sequence of str
        Formats in which each run is exported, to ``exports/`` in the batch's folder.
    recursive : bool
        Whether folders are searched at every depth.
    out : path, optional
        The batch's folder; named by images and settings in the data folder by default.
    workers, cores, devices, scheduler, cluster, client, low_priority
        Where it runs; see `hrviewer.batch.cluster.connect`. By default on this machine.
    retries : int
        Further attempts at an image whose worker ended, or whose error may pass.
    on_error : {"skip", "stop"}
        Whether the batch goes on after an image that failed.
    params : mapping, optional
        Parameters of the strategy, by name.
    **more_params
        The same as keywords.

    Returns
    -------
    Batch
        With ``table``, ``failed``, ``stop()`` and ``wait()``; iterating gives the rows as images
        are finished.

    Raises
    ------
    HrviewerError
        If there is no image, the settings are invalid, or another batch uses the folder.

    Examples
    --------
    >>> job = hrviewer.batch("slides/", "nuclei", "zoom", workers=2)  # doctest: +SKIP
    >>> for row in job:  # doctest: +SKIP
    ...     print(row["image"], row["estimate"])
    >>> job.table.to_csv("cohort.csv")  # doctest: +SKIP
    """
    entries = list_entries(images, recursive=recursive)
    check_place(cluster)
    if model is None and not all(entry.model for entry in entries):
        raise no_model_error()
    if retries < 0:
        raise ParameterError(f"retries are 0 or more, not {retries}")
    try:
        settings = BatchSettings(
            model=None if model is None else str(model),
            trust=trust,
            strategy=strategy,
            params=merge_params(params, more_params),
            budget=budget,
            seed=seed,
            region=region,
            tissue=tissue,
            truth=None if truth is None else str(truth),
            precision=precision,
            cache=cache,
            exports=tuple(exports),
        ).checked()
    except ValidationError as error:
        raise validation_error(error, "batch", known=BatchSettings.model_fields) from None
    places = {
        "workers": workers,
        "cores": cores,
        "devices": tuple(devices),
        "scheduler": scheduler,
        "cluster": cluster,
        "client": client,
        "low_priority": low_priority,
    }
    folder = Path(out).expanduser() if out else default_batch_folder(entries, settings)
    return Batch(entries, settings, folder, places, retries=retries, on_error=on_error)


def default_batch_folder(entries: Sequence[ImageEntry], settings: BatchSettings) -> Path:
    """Return the folder of a batch: the same one for the same images and settings."""
    import hashlib

    keys = "\n".join([settings.digest, *sorted(entry.key for entry in entries)])
    digest = hashlib.sha256(keys.encode()).hexdigest()[:10]
    return data_folder() / "batches" / f"{settings.strategy}-{digest}"
