"""Batches on several processes: kills, a scheduler of its own, a cluster's queue."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image
from toys import write_thin_model

from hrviewer.batch import batch
from hrviewer.runs import Run

IMAGES = 4
PATIENCE_S = 600
COMMAND = (sys.executable, "-m", "hrviewer")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with images and a model."""
    home = tmp_path_factory.mktemp("batches")
    (home / "slides").mkdir()
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        pixels = rng.integers(0, 256, (512, 640, 3), np.uint8)
        Image.fromarray(pixels).save(home / "slides" / f"{i}.png")
    write_thin_model(home / "model.onnx")
    return home


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HRVIEWER_BACKEND", "torch")


def arguments_for(home: Path, out: Path) -> list[str]:
    """Return the command's arguments, for workers of one core each."""
    return ["batch", str(home / "slides"), "--model", str(home / "model.onnx"), "--strategy",
            "patches", "--set", "tile=64", "--cores", "1", "--cache", "off",
            "--out", str(out)]  # fmt: skip


@pytest.fixture
def arguments(home: Path, tmp_path: Path) -> list[str]:
    return arguments_for(home, tmp_path / "batch")


def until(condition: Callable[[], Any]) -> Any:
    """Wait until a condition holds; return what it gives."""
    limit = time.monotonic() + PATIENCE_S
    while time.monotonic() < limit:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it never came to that")


def answers(folder: Path) -> dict[str, tuple[float, bytes]]:
    """Return estimate and map of every image of a batch."""
    table = pd.read_parquet(folder / "table.parquet")
    assert (table["status"] == "done").all(), table[["image", "status", "error"]]
    return {
        Path(row["image"]).name: (row["estimate"], Run(row["run"]).output.tobytes())
        for row in table.to_dict("records")
    }


@pytest.fixture(scope="module")
def expected(home: Path) -> dict[str, tuple[float, bytes]]:
    """Return the answers of a batch that nothing disturbs."""
    calm = [*COMMAND, *arguments_for(home, home / "calm"), "--workers", "1"]
    environment = os.environ | {"HRVIEWER_BACKEND": "torch", "HRVIEWER_CACHE": str(home / "cache")}
    subprocess.run(calm, check=True, timeout=PATIENCE_S, env=environment)
    return answers(home / "calm")


def begun_runs(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "batch" / "runs").glob("*.run.zarr/journal"))


def worker_processes(parent: int) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(parent).children(recursive=True)
        if any("spawn_main" in part for part in child.cmdline())
    ]


@pytest.mark.slow
def test_killed_workers_and_commands(arguments, expected, tmp_path):
    """The command is killed in the middle, then workers of the next one: the bits are the same."""
    first = subprocess.Popen([*COMMAND, *arguments, "--workers", "2"])
    until(lambda: begun_runs(tmp_path) or first.poll() is not None)
    first.kill()
    first.wait()
    second = subprocess.Popen([*COMMAND, *arguments, "--workers", "2"])
    victims = until(lambda: worker_processes(second.pid) or second.poll() is not None)
    if victims is not True:
        until(lambda: begun_runs(tmp_path) or second.poll() is not None)
        victims[0].kill()
    second.wait(PATIENCE_S)
    if second.returncode:  # an image's worker may have been killed more often than it is retried
        subprocess.run([*COMMAND, *arguments, "--workers", "2"], check=True, timeout=PATIENCE_S)
    assert answers(tmp_path / "batch") == expected


@pytest.mark.slow
def test_sigterm_stops_in_good_order(arguments, expected, tmp_path):
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--workers", "1"], stderr=subprocess.PIPE, text=True
    )
    until(lambda: begun_runs(tmp_path) or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    _, messages = process.communicate(timeout=PATIENCE_S)
    assert process.returncode in (0, 130)
    if process.returncode:
        assert "run the same command again" in messages
    subprocess.run([*COMMAND, *arguments, "--workers", "1"], check=True, timeout=PATIENCE_S)
    assert answers(tmp_path / "batch") == expected


@contextmanager
def scheduler_with_workers(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Return address and process of a scheduler with two workers, each a command of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    dask = [sys.executable, "-m", "dask"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [
        subprocess.Popen(
            [*dask, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"],
            **quiet,
        )
    ]
    command = [*dask, "worker", address, "--nthreads", "1", "--no-dashboard"]
    for _ in range(2):
        processes.append(subprocess.Popen([*command, "--local-directory", str(folder)], **quiet))
    try:
        yield address, processes[0]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(PATIENCE_S)


@pytest.mark.slow
def test_a_scheduler_with_its_own_workers(arguments, expected, tmp_path):
    with scheduler_with_workers(tmp_path) as (address, _):
        done = subprocess.run([*COMMAND, *arguments, "--scheduler", address], timeout=PATIENCE_S)
    assert done.returncode == 0
    table = pd.read_csv(tmp_path / "batch" / "table.csv")
    assert table["worker"].str.contains(socket.gethostname()).all()
    assert answers(tmp_path / "batch") == expected


@pytest.mark.slow
def test_a_killed_scheduler(arguments, expected, tmp_path):
    """The command ends with one line, and goes on with another scheduler: the same bits."""
    with scheduler_with_workers(tmp_path) as (address, process):
        command = subprocess.Popen(
            [*COMMAND, *arguments, "--scheduler", address], stderr=subprocess.PIPE, text=True
        )
        until(lambda: begun_runs(tmp_path) or command.poll() is not None)
        process.kill()
        _, messages = command.communicate(timeout=PATIENCE_S)
    assert command.returncode in (0, 1)
    if command.returncode:
        assert "run the same command again to go on" in messages
        assert "Traceback" not in messages
    with scheduler_with_workers(tmp_path) as (address, _):
        again = [*COMMAND, *arguments, "--scheduler", address]
        subprocess.run(again, check=True, timeout=PATIENCE_S)
    assert answers(tmp_path / "batch") == expected


@pytest.mark.slow
def test_a_queue_that_starts_workers(arguments, expected, tmp_path, monkeypatch):
    """``sbatch`` of the test starts the job's script at once, as a free node would."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, script in (
        ("sbatch", f'bash "$1" > {tmp_path}/job.log 2>&1 &\necho "Submitted batch job $!"\n'),
        ("scancel", 'pkill -TERM -P "$1"\nkill "$1"\n'),
    ):
        path = commands / name
        path.write_text(f"#!/bin/bash\n{script}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    (tmp_path / "slurm.yaml").write_text(
        "class: dask_jobqueue.SLURMCluster\n"
        "options:\n"
        "  {cores: 1, processes: 1, memory: 2GB, interface: lo, walltime: '00:10:00',\n"
        f"   shared_temp_directory: {tmp_path}, local_directory: {tmp_path}}}\n"
        "workers: 2\n"
    )
    done = subprocess.run(
        [*COMMAND, *arguments, "--cluster", str(tmp_path / "slurm.yaml")], timeout=PATIENCE_S
    )
    assert done.returncode == 0
    assert answers(tmp_path / "batch") == expected


@pytest.mark.slow
def test_python_on_several_processes(home, expected, tmp_path):
    job = batch(home / "slides", home / "model.onnx", "patches", tile=64, cache="off",
                out=tmp_path / "batch", workers=2, cores=1)  # fmt: skip
    finished = [Path(row["image"]).name for row in job]
    assert sorted(finished) == sorted(expected)
    assert job.complete
    assert answers(tmp_path / "batch") == expected


@pytest.mark.soak
def test_kills_at_random_moments(arguments, expected, tmp_path):
    """Commands and workers are killed at random until all is done: the bits are the same."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        process = subprocess.Popen([*COMMAND, *arguments, "--workers", "2"])
        with suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(2, 40))
        victims = worker_processes(process.pid) if process.poll() is None else []
        if victims and rng.random() < 0.5:
            victims[0].kill()
            process.wait(PATIENCE_S)
        process.kill()
        process.wait()
    subprocess.run([*COMMAND, *arguments, "--workers", "2"], check=True, timeout=PATIENCE_S)
    assert answers(tmp_path / "batch") == expected
    assert not list((tmp_path / "batch").glob("*.new"))


@pytest.mark.soak  # a worker that only computes for long must not seem to hang
def test_a_worker_that_hangs_costs_one_retry(home, expected, tmp_path, monkeypatch):
    """Its image is resumed by another worker once it is silent for longer than a heartbeat."""
    monkeypatch.setattr("hrviewer.batch.cluster.HEARTBEAT", "40 s")
    folder = tmp_path / "batch"
    job = batch(
        home / "slides", home / "model.onnx", "patches", params={"tile": 64}, cores=1, workers=2,
        cache="off", out=folder,
    )  # fmt: skip
    until(lambda: begun_runs(tmp_path) or job.complete)
    victim = worker_processes(os.getpid())[0]
    victim.suspend()
    job.wait()
    assert job.table["attempts"].max() == 2
    assert answers(folder) == expected
