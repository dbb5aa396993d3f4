"""Arrays that are written into again: never two owners, never more than the bound."""

import numpy as np
from toys import Bench, Bright, ToyPack, many_patches, picture

from hrviewer.engine.buffer_pool import Spares


def test_what_is_given_back_is_lent_again_and_to_one_at_a_time():
    spares = Spares()
    first = spares.take((3, 8, 8))
    assert not np.may_share_memory(first, spares.take((3, 8, 8)))
    spares.give(first)
    smaller = spares.take((3, 4, 5))
    assert smaller.shape == (3, 4, 5)
    assert smaller.flags.c_contiguous
    assert np.may_share_memory(first, smaller)
    assert not np.may_share_memory(first, spares.take((3, 4, 5)))


def test_the_smallest_that_fits_is_taken():
    spares = Spares()
    large, small = spares.take((100,)), spares.take((10,))
    spares.give(large)
    spares.give(small)
    assert np.may_share_memory(spares.take((9,)), small)
    assert np.may_share_memory(spares.take((9,)), large)


def test_no_more_than_the_bound_lies_ready():
    spares = Spares(most=100 * 4)
    both = [spares.take((60,)) for _ in range(2)]
    for array in both:
        spares.give(array)
    assert np.may_share_memory(spares.take((60,)), both[0])
    assert not any(np.may_share_memory(spares.take((60,)), array) for array in both)


class Echo(Bright):
    """A network whose output is a view of its input."""

    def _run(self, batch):
        return [batch[:, :1, ::4, ::4]]


def test_an_output_that_is_a_view_of_its_input_is_not_overwritten():
    image = picture(256, 256)
    network = Echo()
    with Bench(image, ToyPack(main=network)) as bench:
        _, record, _ = bench.run(many_patches)
        whole = network.card.prepare(image)[0, ::4, ::4]
        seen = ~np.isnan(record.output.values[0])
        assert seen.any()
        np.testing.assert_array_equal(record.output.values[0][seen], whole[seen])
