"""Where a batch runs: addresses and files that are refused, in one line."""

from __future__ import annotations

import signal
from contextlib import contextmanager

import pytest

from hrviewer.batch.cluster import check_place, connect, read_cluster_file
from hrviewer.errors import HrviewerError, ParameterError
from hrviewer.models import threads


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("localhost", "no scheduler's address"),
        ("http://localhost:8786", "no scheduler's address"),
        ("tcp://10.0.0.7:8786", "not encrypted"),
        ("tcp://scheduler.example:8786", "not encrypted"),
    ],
)
def test_addresses_that_are_refused(address, message):
    with pytest.raises(ParameterError, match=message), connect(scheduler=address):
        pass


def test_one_place_only(tmp_path):
    with (
        pytest.raises(ParameterError, match="one of"),
        connect(scheduler="tcp://127.0.0.1:1", cluster=tmp_path / "a.yaml"),
    ):
        pass


def test_the_import_of_a_cluster_leaves_interrupts_alone(tmp_path):
    path = tmp_path / "slurm.yaml"
    path.write_text("class: dask_jobqueue.SLURMCluster")
    before = signal.getsignal(signal.SIGINT)
    check_place(path)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_cluster_is_read(tmp_path):
    path = tmp_path / "slurm.yaml"
    path.write_text(
        "class: dask_jobqueue.SLURMCluster\noptions: {cores: 4, memory: 8GB}\nworkers: 3"
    )
    assert read_cluster_file(path) == (
        "dask_jobqueue", "SLURMCluster", {"cores": 4, "memory": "8GB"}, 3,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "describes no cluster"),
        ("class: 3", "describes no cluster"),
        ("class: subprocess.Popen", "choose one of dask_jobqueue"),
        ("class: dask_jobqueue.core.Job", "choose one of dask_jobqueue"),
        ("class: dask_jobqueue.SLURMCluster\nnodes: 3", "'nodes'"),
        ("class: dask_jobqueue.SLURMCluster\nworkers: 0", "1 or more"),
        ("class: dask_jobqueue.SLURMCluster\noptions: 3", "options are names"),
        ("class: !!python/object/apply:os.system [ls]", "cannot be read"),
        ("[", "cannot be read"),
    ],
)
def test_files_that_are_refused(tmp_path, text, message):
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(HrviewerError, match=message) as raised, connect(cluster=path):
        pass
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("workers", "at_once"), [(1, 4), (2, 2), (4, 1), (9, 1)])
def test_the_number_of_workers_changes_no_input_s_threads(monkeypatch, workers, at_once):
    """Else the last bits of a convolution would depend on it."""
    started = []

    @contextmanager
    def local_client(*arguments):
        started.append(arguments)
        yield None

    monkeypatch.setattr("hrviewer.batch.cluster.local_client", local_client)
    monkeypatch.setattr(threads, "_process_limit", 8)  # four inputs at once, of two cores each
    with connect(workers=workers, shared=True) as found:
        assert found.cores == 2
    assert started == [(workers, at_once)]
