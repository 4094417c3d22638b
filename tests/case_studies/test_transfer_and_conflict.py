"""The case study of transfer and conflict: a shortage of units, a matter of seeds, conflict that does not decide."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

MEANS = (("best", "mean"), ("se", lambda own: np.sqrt(np.sum(own**2)) / len(own)))
"""Of a problem's two tasks: mean harm, and its standard error."""


@pytest.fixture(scope="module")
def study(read_study: Callable[[str], ModuleType]) -> ModuleType:
    return read_study("transfer_and_conflict")


def test_problems(study: ModuleType) -> None:
    assert study.two_networks(0).n_cells.tolist() == [1500, 1500]
    assert study.two_directions().n_rows == 600
    pair = study.known_pair(0.9, 60, 0)
    assert pair.n_rows == 60 + study.TEST
    noisy = 0.9 / (1 + study.NOISE**2)
    many = study.known_pair(0.9, 20_000, 0)
    # Heads of cosine .9 on standardised units, which are correlated: the functions are so about as much.
    assert np.corrcoef(many.y)[0, 1] == pytest.approx(noisy, abs=0.15)


def test_harm_is_shared_less_single(study: ModuleType) -> None:
    losses = {"shared": np.array([[[3.0], [1.0]]]), "single": np.array([[[1.0], [1.0]]])}
    harm, se = study._harm(losses, 0, np.take, -1)
    assert harm == 1.0 and se == pytest.approx(np.sqrt(2.0 / 2))


@pytest.mark.slow
def test_conclusions(quick: Callable[..., Any], study: ModuleType) -> None:
    room, seeds, pulls = quick("transfer_and_conflict")
    # What looks like harm is a shortage.
    gaps = room.table()
    narrow = gaps[gaps["width"] == 8]
    assert (narrow["gap"] < -3 * narrow["se"]).all() and room.width == 32
    # Runs tie on average, and are good at different tasks.
    pairs = seeds.pairs()
    assert pairs["tied"].mean() > 0.8 and pairs["trap"].mean() > 0.2
    assert np.corrcoef(seeds.scores.T)[0, 1] < -0.9
    # The same conflict, and sharing helps once and hurts once.
    few, many = (pulls.set_index(["cosine", "rows", "width"]).loc[own] for own in study.SAME)
    assert (few["conflict"] > 0.6).all() and (many["conflict"] > 0.6).all()
    harm, se = (np.array([own[column].agg(read) for own in (few, many)]) for column, read in MEANS)
    assert harm[0] < -se[0] and harm[1] > se[1] and harm[1] - harm[0] > 3 * np.hypot(*se)
    # With few rows it helps at equal training loss; with many the harm came through the training loss.
    assert (few["lowest"] < 0).all() and (np.abs(many["lowest"]) < 0.3 * many["best"]).all()
