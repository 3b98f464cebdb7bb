"""Which spectra are held out: what cannot be divided, and the streams of random numbers that must stay."""

import numpy as np
import pytest

from emuinfer.errors import GridError
from emuinfer.grids.split import flagship_split, split_rows


def test_split_refuses_what_cannot_be_split():
    assert [len(part) for part in split_rows(3, 0.1)] == [2, 1]
    assert not np.array_equal(split_rows(200, seed=1)[1], split_rows(200)[1])
    for n, fraction in ((1, 0.1), (10, 0.0), (10, 0.7)):
        with pytest.raises(GridError):
            split_rows(n, fraction)


def test_shuffled_split_has_the_stream_of_every_shipped_emulator():
    order = np.random.default_rng(0).permutation(1183)
    train, test = flagship_split(1183)
    np.testing.assert_array_equal(test, np.sort(order[:118]))
    np.testing.assert_array_equal(train, np.sort(order[118:]))
    fit, held = split_rows(37, 0.2, 5, shuffled=True)
    np.testing.assert_array_equal(held, np.sort(np.random.default_rng(5).permutation(37)[:7]))
    assert np.array_equal(np.sort(np.concatenate([fit, held])), np.arange(37))
    with pytest.raises(GridError, match="9 spectra cannot be split"):
        flagship_split(9)
