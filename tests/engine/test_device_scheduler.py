"""The device scheduler: priorities, batches, memory, failures."""

import os
import sys
import threading
import time
import weakref
from functools import partial

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


# A device whose memory is counted: what references hold is not free.


class Memory:
    """Memory of a device: blocks are free again once nothing refers to them."""

    def __init__(self, tiles: float) -> None:
        self.limit, self.used, self.failures = tiles, 0, 0

    def take(self, tiles: int = 1) -> object:
        def free() -> None:
            self.used -= tiles

        if self.used + tiles > self.limit:
            self.failures += 1
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        block = threading.Event()  # any object that can be referred to weakly
        self.used += tiles
        weakref.finalize(block, free)
        return block

    def hold(self, batch):
        """Keep a block for each input until the frame ends: after a failure, its traceback."""
        _held = [self.take() for _ in batch]


@pytest.mark.parametrize(("tiles", "size", "failures"), [(2.2, 2, 1), (1.2, 1, 2)])
def test_a_smaller_batch_has_the_memory_of_the_failed_one(device, tiles, size, failures):
    memory, net = Memory(tiles), Bright()
    net.before = memory.hold
    go = gate(device)
    futures = [device.submit(net, a) for a in arrays(4)]
    go.set()
    for i, future in enumerate(futures):
        np.testing.assert_allclose(future.result(10).output, 16 * i)
    assert (device.batch, memory.failures, memory.used) == (size, failures, 0)


def test_a_halved_batch_grows_again(device, monkeypatch):
    monkeypatch.setattr("hrviewer.engine.device_scheduler.RECOVERY_BATCHES", 2)
    device.batch = 4
    memory, net = Memory(2), Bright()
    net.before = memory.hold
    go = gate(device)
    futures = [device.submit(net, a) for a in arrays(4)]
    go.set()
    assert all(future.exception(10) is None for future in futures)
    assert device.batch == 2
    memory.limit = 4
    for a in arrays(4):
        device.submit(net, a).result(10)
    assert device.batch == 4


def test_a_single_job_waits_for_the_memory_of_others():
    """Tokens, warps and other calls cannot be halved."""
    device, memory = DeviceScheduler(streams=2), Memory(2)
    held, failed = threading.Event(), threading.Event()

    def other() -> None:
        _block = memory.take()
        held.set()
        failed.wait(10)

    def single() -> int:
        held.wait(10)
        try:
            _block = memory.take(2)
        finally:
            failed.set()
        return 7

    try:
        one, two = device.call(other), device.call(single)
        assert two.result(10).output == 7
        assert one.exception(10) is None
        assert memory.failures == 1
        memory.limit = 0
        with pytest.raises(MemoryError, match="out of memory"):
            device.call(single).result(10)
        assert device.call(lambda: 1).result(10).output == 1
    finally:
        device.close()


def test_a_batch_of_one_device_is_not_that_of_another():
    gpu, cpu, other = Bright(), Bright(), Bright()
    gpu.device = other.device = "cuda:0"
    gpu.measurements["batch",], other.measurements["batch",] = 8, 2
    device = DeviceScheduler()
    try:
        for net, batch in ((gpu, 8), (cpu, 1), (other, 2), (gpu, 8)):
            device.call(partial(device.autotune_batch, net)).result(10)
            assert device.batch == device.batch_for(net, np.zeros((3, 64, 64))) == batch
        assert device.batch_for(cpu, np.zeros((3, 64, 64))) == 1  # a built-in saliency
    finally:
        device.close()


def test_apples_gpus_are_used_by_one_thread():
    net, names = Bright(), set()
    net.device = "mps"
    net.before = lambda batch: names.add(threading.current_thread().ident)
    device = DeviceScheduler(streams=4)
    try:
        for future in [device.submit(net, a) for a in arrays(12)]:
            future.result(10)
    finally:
        device.close()
    assert len(names) == 1
