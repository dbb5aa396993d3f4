"""Long use: hundreds of runs, kills and races; memory, threads and handles stay as they are."""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from failing_files import count_operations
from toys import picture, toy_bundle

from hrviewer.errors import ClaimedError
from hrviewer.runs import Run, compare, run

from .test_failing_files import NAMES, check_failure, command_of, make_folder

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(sys.platform == "win32", reason="signals and fork are POSIX's"),
]

RUNS, KILLS, RACES = 200, 100, 50
GROWTH = 48 << 20
"""Bytes by which memory may grow after the fifth use; a leaked map or image is larger."""

SIDE, IMAGES = 8192, 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image, a run of it and one with embeddings."""
    return make_folder(tmp_path_factory.mktemp("made"))


class Usage:
    """Memory, threads and handles of this process over time."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.rows: list[tuple[int, int, int]] = []

    def measure(self) -> None:
        gc.collect()
        info = self.process
        self.rows.append((info.memory_info().rss, threading.active_count(), info.num_fds()))

    def check_flat(self, first: int = 5) -> None:
        memory, threads, handles = np.array(self.rows[first:]).T
        half = len(memory) // 2
        assert np.median(memory[half:]) - np.median(memory[:half]) < GROWTH
        assert threads[half:].max() <= threads[:half].max()
        assert handles[half:].max() <= handles[:half].max()


def test_runs_in_one_process(tmp_path: Path) -> None:
    image, usage = picture(512, 512), Usage()
    strategies = ("patches", "uniform", "zoom", "nonuniform")
    for i in range(RUNS):
        run(image, toy_bundle(), strategies[i % 4], out=tmp_path / f"{i}.run.zarr", cache="off")
        usage.measure()
    usage.check_flat(RUNS // 10)


def test_a_comparison_of_large_images(tmp_path: Path) -> None:
    usage = Usage()
    images = [f"sample:crowd?size={SIDE}&seed={10_100 + i}" for i in range(IMAGES)]
    for i, image in enumerate(images):
        compare(
            image, toy_bundle(), ["patches", "uniform", "zoom"], out=tmp_path / str(i),
            cache="off", progress=False,
        )  # fmt: skip
        usage.measure()
    usage.check_flat()


def test_random_kills(made: Path, tmp_path: Path) -> None:
    chance = random.Random(0)
    counts: dict[str, tuple[int, object]] = {}
    for i in range(KILLS):
        name = chance.choice(NAMES)
        command = command_of(name, made)
        if name not in counts:
            reference = tmp_path / name
            reference.mkdir()
            operations = count_operations(partial(command.act, reference), reference)
            counts[name] = operations, command.read(reference)
        operations, expected = counts[name]
        at = chance.randrange(operations)
        check_failure(command, tmp_path / f"kill{i}", expected, "kill", at)


def test_two_writers_of_one_run(tmp_path: Path) -> None:
    """One wins, and its run is whole; the other gets one line."""
    image, reference = picture(96, 128), None
    for i in range(RACES):
        out = tmp_path / f"{i}.run.zarr"
        writers = [start_writer(image, out) for _ in range(2)]
        statuses = [os.waitpid(writer, 0)[1] for writer in writers]
        found = Run(out)
        assert found.complete
        reference = found.output.tobytes() if reference is None else reference
        assert found.output.tobytes() == reference
        assert sorted(map(os.waitstatus_to_exitcode, statuses)) in ([0, 0], [0, 3])
        assert not [path for path in out.iterdir() if "claim" in path.name]


def start_writer(image: np.ndarray, out: Path) -> int:
    """Start a process that writes a run, or resumes it; its status is 3 if another writes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            run(image, toy_bundle(), tile=32, out=out, cache="off", resume=out.exists())
            code = 0
        except ClaimedError:
            code = 3
        except BaseException as error:
            print(error, file=sys.stderr)
        os._exit(code)
    return child
