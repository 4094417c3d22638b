"""The case study of bike riders: the working day pushes the two kinds apart, and they are not one function."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="module")
def study(read_study: Callable[[str], ModuleType]) -> ModuleType:
    return read_study("bike_riders")


def check_ratios(found: pd.DataFrame) -> None:
    """Opposite signs, about as in a Poisson regression of each alone (−0.88 and +0.28)."""
    casual, registered = found.itertuples()
    assert -1.1 < casual.log_ratio < -0.6 and casual.high < -0.5
    assert 0.1 < registered.log_ratio < 0.5 and registered.low > 0.05
    assert casual.p_opposite > 0.99


def test_hours(study: ModuleType) -> None:
    frame = study.read()
    assert len(frame) == 8645 and frame["day"].is_monotonic_increasing
    np.testing.assert_allclose(frame["sin 1"] ** 2 + frame["cos 1"] ** 2, 1.0)
    some = study.read(500)
    assert len(some) == 500 and some["day"].is_monotonic_increasing


def test_products_vanish_on_days_off(study: ModuleType) -> None:
    frame = study.by_hour(study.read(500))
    products = frame.filter(like="workingday ×")
    assert products.shape[1] == 4 and not products[frame["workingday"] == 0].any().any()


def test_the_working_day_pushes_them_apart(study: ModuleType) -> None:
    frame = study.read(1_500)
    check_ratios(study.ratios(study.mechanisms(frame), frame))


@pytest.mark.slow
def test_one_function_for_both_fails_registered_riders_in_later_months(quick: Callable[..., Any]) -> None:
    found, advice = quick("bike_riders")
    check_ratios(found)
    assert "later rows left out" in advice.evidence
    registered = advice.differences.set_index(["task", "arrangement"]).loc[("registered", "merged")]
    assert registered["difference"] < -4 * registered["se"] < 0
    assert advice.pairs["p_merge"][0] < 0.05 and advice.arrangement.relation("casual", "registered") != "merge"
