"""The device scheduler: priorities, batches, memory, failures."""

import os
import sys
import threading
import time

import numpy as np
import pytest
from toys import Bright

from hrviewer.engine import DeviceScheduler, Priority
from hrviewer.engine.device_scheduler import NICENESS, is_out_of_memory
from hrviewer.models.threads import PerThreadCount, share_cores, thread_limit


def gate(device: DeviceScheduler) -> threading.Event:
    """Hold the device until the event is set, so that a queue can form."""
    event = threading.Event()
    started = threading.Event()

    def wait() -> None:
        started.set()
        event.wait(10)

    device.call(wait, Priority.LIVE)
    started.wait(10)
    return event


@pytest.fixture
def device():
    device = DeviceScheduler(batch=4)
    yield device
    device.close()


def arrays(n, side=8):
    return [np.full((3, side, side), i, np.float32) for i in range(n)]


def test_jobs_of_one_shape_form_a_batch(device):
    net = Bright()
    sizes: list[int] = []
    net.before = lambda batch: sizes.append(len(batch))
    go = gate(device)
    futures = [device.submit(net, a) for a in arrays(6)]
    odd = device.submit(net, arrays(1, 12)[0])
    go.set()
    outputs = [f.result(10).output for f in futures]
    assert odd.result(10).output.shape == (1, 3, 3)
    # Part batches are filled up: what an input gives does not depend on who came along.
    assert sizes == [4, 4, 4]
    for i, output in enumerate(outputs):
        np.testing.assert_allclose(output, 16 * i)


@pytest.mark.skipif(sys.platform != "linux", reason="niceness of threads is Linux's")
def test_threads_of_low_priority_are_nice():
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    for polite in (True, False):
        device = DeviceScheduler(low_priority=polite)
        try:
            asked = device.call(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            assert asked.result(10).output == max(own, NICENESS if polite else own)
        finally:
            device.close()
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


def test_batches_form_around_other_shapes(device):
    net = Bright()
    go = gate(device)
    small, large = arrays(3), arrays(3, 12)
    futures = [device.submit(net, a) for pair in zip(small, large, strict=True) for a in pair]
    go.set()
    shapes = [f.result(10).output.shape for f in futures]
    assert shapes == [(1, 2, 2), (1, 3, 3)] * 3
    assert net.calls == 2


def test_live_goes_before_runs_and_runs_before_prefetch(device):
    order: list[str] = []
    go = gate(device)
    jobs = [
        device.call(lambda: order.append("prefetch"), Priority.PREFETCH),
        device.call(lambda: order.append("run"), Priority.RUN),
        device.call(lambda: order.append("live"), Priority.LIVE),
    ]
    go.set()
    for job in jobs:
        job.result(10)
    assert order == ["live", "run", "prefetch"]


def test_out_of_memory_ends_at_single_inputs():
    net = Bright()

    def before(batch):
        if len(batch) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    net.before = before
    device = DeviceScheduler(batch=2)
    try:
        go = gate(device)
        futures = [device.submit(net, a) for a in arrays(2)]
        go.set()
        for i, future in enumerate(futures):
            np.testing.assert_allclose(future.result(10).output, 16 * i)
        assert device.batch == 1
    finally:
        device.close()


def test_out_of_memory_halves_the_batch(device):
    net = Bright()

    def lack(batch):
        if len(batch) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    net.before = lack
    go = gate(device)
    futures = [device.submit(net, a) for a in arrays(8)]
    go.set()
    assert [float(f.result(10).output.sum()) / 64 for f in futures] == pytest.approx(range(8))
    assert device.batch == 2


def test_streams_share_the_cores_and_split_the_time(monkeypatch):
    monkeypatch.setattr("hrviewer.models.threads.available_cores", lambda: 8)
    together = threading.Barrier(2)
    net, taken = Bright(), []

    def before(batch):
        taken.append(thread_limit())
        if len(taken) <= 2:
            together.wait(10)
            time.sleep(0.2)

    net.before = before
    device = DeviceScheduler(streams=2)
    try:
        start = time.perf_counter()
        both = [device.submit(net, a) for a in arrays(2)]
        seconds = sum(job.result(10).seconds for job in both)
        passed = time.perf_counter() - start
        assert 0.2 <= seconds <= passed
        device.submit(net, arrays(1)[0], exclusive=True).result(10)
        # For any thread, and after any earlier work.
        assert [device.call(thread_limit).result(10).output for _ in range(8)] == [8] * 8
    finally:
        device.close()
    assert taken == [4, 4, 8]


def test_large_inputs_of_a_cpu_get_all_cores_one_after_another(monkeypatch):
    monkeypatch.setattr("hrviewer.engine.device_scheduler.LARGE_INPUT", 1024)
    monkeypatch.setattr("hrviewer.models.threads.available_cores", lambda: 8)
    taken: list[tuple[int, int | None, str]] = []
    net = Bright()
    net.before = lambda batch: taken.append(
        (len(batch), thread_limit(), threading.current_thread().name)
    )
    device = DeviceScheduler(batch=4, streams=2)
    try:
        threads = {id(thread): thread.name for thread in threading.enumerate()}
        assert [*threads.values()].count("hrviewer-device") == 2
        futures = [device.submit(net, a) for a in arrays(3, 16)]
        for i, future in enumerate(futures):
            np.testing.assert_allclose(future.result(10).output, 16 * i)
    finally:
        device.close()
    assert [(n, limit) for n, limit, _ in taken] == [(1, 8)] * 3


def test_batches_of_a_gpu_have_fewer_large_inputs(device):
    net = Bright()  # tiles of 64 pixels
    net.device = "cuda:0"
    sides = (32, 64, 128, 1024)
    batches = [device.batch_for(net, np.zeros((3, side, side))) for side in sides]
    assert batches == [4, 4, 1, 1]


def test_one_bad_input_fails_alone(device):
    net = Bright()

    def refuse(batch):
        if (batch[:, 0, 0, 0] == 2).any():
            raise ValueError("no twos")

    net.before = refuse
    go = gate(device)
    futures = [device.submit(net, a) for a in arrays(4)]
    go.set()
    with pytest.raises(ValueError, match="no twos"):
        futures[2].result(10)
    assert all(futures[i].exception(10) is None for i in (0, 1, 3))
    assert device.batch == 4


def test_closing_cancels_waiting_jobs_and_ends_the_thread():
    device = DeviceScheduler()
    go = gate(device)
    waiting = device.submit(Bright(), arrays(1)[0])
    closer = threading.Thread(target=device.close)
    closer.start()
    time.sleep(0.02)
    go.set()
    closer.join(10)
    assert waiting.cancelled()
    assert not any(t.name == "hrviewer-device" for t in threading.enumerate())
    with pytest.raises(RuntimeError, match="closed"):
        device.call(lambda: None)


def test_out_of_memory_errors_of_back_ends():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("[ONNXRuntimeError] Failed to allocate memory for 1"))
    assert not is_out_of_memory(ValueError("shape"))


@pytest.mark.parametrize(("holds", "found"), [(64, 8), (4, 4), (1, 1)])
def test_a_gpu_gets_its_fastest_batch_and_two_threads(monkeypatch, holds, found):
    now = [0.0]
    monkeypatch.setattr("hrviewer.engine.device_scheduler.time.perf_counter", lambda: now[0])
    net = Bright()
    net.device = "cuda:0"

    def before(batch):
        if len(batch) > holds:
            raise MemoryError
        now[0] += max(1.0, len(batch) / 8)  # eight inputs take no longer than one

    net.before = before
    device = DeviceScheduler()
    try:
        for _ in range(2):
            device.call(lambda: device.autotune_batch(net)).result(10)
            assert device.batch == found
        names = [t.name for t in threading.enumerate()]
        assert names.count("hrviewer-device") == 2
    finally:
        device.close()
    assert not any(t.name == "hrviewer-device" for t in threading.enumerate())


def test_a_cpu_keeps_its_batch(device):
    device.call(lambda: device.autotune_batch(Bright())).result(10)
    assert device.batch == 4


def test_objects_per_thread_count_are_made_once(monkeypatch):
    monkeypatch.setattr("hrviewer.models.threads.available_cores", lambda: 8)
    made = []
    by = PerThreadCount(lambda count: made.append(count) or count)
    with share_cores(4):
        assert by.get() == by.get() == 2
    assert by.get() == by.get() == 8
    assert made == [2, 8]
    always = PerThreadCount(lambda count: count, 3)
    with share_cores(4):
        assert always.get() == 3
