"""The buffer pool: one owner per buffer, bounded memory."""

import numpy as np
from toys import Bright, ToyBundle, Workbench, many_patches, picture

from hrviewer.engine.buffer_pool import BufferPool


def test_released_buffers_are_reused_by_one_owner_at_a_time():
    spares = BufferPool()
    first = spares.acquire((3, 8, 8))
    assert not np.may_share_memory(first, spares.acquire((3, 8, 8)))
    spares.release(first)
    smaller = spares.acquire((3, 4, 5))
    assert smaller.shape == (3, 4, 5)
    assert smaller.flags.c_contiguous
    assert np.may_share_memory(first, smaller)
    assert not np.may_share_memory(first, spares.acquire((3, 4, 5)))


def test_the_smallest_fitting_buffer_is_acquired():
    spares = BufferPool()
    large, small = spares.acquire((100,)), spares.acquire((10,))
    spares.release(large)
    spares.release(small)
    assert np.may_share_memory(spares.acquire((9,)), small)
    assert np.may_share_memory(spares.acquire((9,)), large)


def test_free_buffers_are_bounded():
    spares = BufferPool(max_bytes=100 * 4)
    both = [spares.acquire((60,)) for _ in range(2)]
    for array in both:
        spares.release(array)
    assert np.may_share_memory(spares.acquire((60,)), both[0])
    assert not any(np.may_share_memory(spares.acquire((60,)), array) for array in both)


class Echo(Bright):
    """A network whose output is a view of its input."""

    def _run(self, batch):
        return [batch[:, :1, ::4, ::4]]


def test_an_output_that_is_a_view_of_its_input_is_not_overwritten():
    image = picture(256, 256)
    network = Echo()
    with Workbench(image, ToyBundle(main=network)) as bench:
        _, record, _ = bench.run(many_patches)
        whole = network.card.prepare(image)[0, ::4, ::4]
        seen = ~np.isnan(record.output.values[0])
        assert seen.any()
        np.testing.assert_array_equal(record.output.values[0][seen], whole[seen])
