"""Which cells steps see: proportions, order, and that nothing is seen too often."""

from __future__ import annotations

import numpy as np
import pytest

import bmtl
from bmtl.training import Sampling
from bmtl.training.sampling import Batches


@pytest.fixture
def uneven() -> bmtl.Tasks:
    """Three tasks on 80 rows with 80, 40 and 20 cells."""
    rng = np.random.default_rng(0)
    Y = rng.normal(size=(80, 3))
    Y[40:, 1] = Y[::4, 2] = Y[1::4, 2] = Y[2::4, 2] = np.nan
    return bmtl.Tasks.from_arrays(rng.normal(size=(80, 2)), Y, ["gaussian"] * 3)


@pytest.mark.parametrize(
    ("temperature", "share"),
    [
        (1.0, [4 / 7, 2 / 7, 1 / 7]),
        (np.inf, [1 / 3] * 3),
        (2.0, np.sqrt([4, 2, 1]) / np.sqrt([4, 2, 1]).sum()),
    ],
)
def test_shares(uneven, temperature, share) -> None:
    sampling = Sampling(temperature=temperature)
    np.testing.assert_allclose(sampling.shares(uneven.n_cells), share)


def test_batches_across_tasks_hold_every_tasks_share(uneven) -> None:
    batches = Batches(Sampling(batch_size=14), uneven, 0)
    assert batches.steps == 10
    for cells, factor in batches.epoch():
        assert [own.size for own in cells] == [8, 4, 2]
        np.testing.assert_allclose(factor, np.array([12, 6, 3]) / 7)
    # A task has one cell at least, however small its share.
    (cells, _), *_ = Batches(Sampling(batch_size=2), uneven, 0).epoch()
    assert [own.size for own in cells] == [1, 1, 1]


def test_an_epoch_sees_every_cell_once_and_the_next_in_another_order(uneven) -> None:
    batches = Batches(Sampling(batch_size=14), uneven, 0)
    seen = [np.concatenate([cells[0] for cells, _ in batches.epoch()]) for _ in range(3)]
    for own in seen:
        assert sorted(own) == list(range(80))
    assert not np.array_equal(seen[0], seen[1])


def test_no_cell_twice_in_a_batch_where_sizes_do_not_divide(uneven) -> None:
    batches = Batches(Sampling(batch_size=33, temperature=np.inf), uneven, 0)
    counts = np.zeros(20)
    for _ in range(40):
        for cells, _ in batches.epoch():
            assert all(len(np.unique(own)) == len(own) for own in cells)
            np.add.at(counts, cells[2], 1)
    # All are seen equally often, but for the pass that is under way.
    assert np.ptp(counts) <= 2


def test_tasks_on_the_same_rows_see_the_same_rows() -> None:
    rng = np.random.default_rng(0)
    tasks = bmtl.Tasks.from_arrays(rng.normal(size=(30, 1)), rng.normal(size=(30, 2)), ["gaussian"] * 2)
    for cells, _ in Batches(Sampling(batch_size=10), tasks, 3).epoch():
        np.testing.assert_array_equal(*cells)


@pytest.mark.parametrize("temperature", [1.0, 3.0, np.inf])
def test_batches_within_tasks_follow_the_shares(uneven, temperature) -> None:
    sampling = Sampling(batch_size=7, temperature=temperature, within_task=True)
    batches, counts = Batches(sampling, uneven, 1), np.zeros(3)
    for _ in range(100):
        for cells, factor in batches.epoch():
            (t,) = np.flatnonzero([own.size for own in cells])
            assert cells[t].size == 7
            assert factor.tolist() == [3.0 * (own == t) for own in range(3)]
            counts[t] += 1
    share, n = sampling.shares(uneven.n_cells), counts.sum()
    assert n == 2000
    # Four standard errors of a binomial share.
    assert np.all(np.abs(counts / n - share) < 4 * np.sqrt(share * (1 - share) / n))


def test_seeds_are_the_order(uneven) -> None:
    first, again, other = (
        [np.concatenate(cells) for cells, _ in Batches(Sampling(batch_size=14), uneven, seed).epoch()]
        for seed in (0, 0, 1)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size ≥ 1, got 0"),
        ({"temperature": 0.5}, "temperature ≥ 1, got 0.5"),
        ({"within_task": True}, "within tasks needs a batch_size"),
    ],
)
def test_what_it_refuses(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**options)
