"""The case study of loss weighting: learned weights are those of the stop and the units, a posterior's are not."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def study(read_study: Callable[[str], ModuleType]) -> ModuleType:
    return read_study("loss_weighting")


def test_the_published_example(study: ModuleType) -> None:
    tasks = study.example()
    assert tasks.n_rows == 100 and tasks.names == ("first", "second")
    assert tasks.X[0, 0] == pytest.approx(1.764052, abs=1e-6)  # NumPy's first normal number of seed 0
    np.testing.assert_allclose(study.classical(tasks)[["low", "high"]], [[9.11, 12.08], [0.84, 1.11]], atol=0.01)


def test_own_units_are_not_standardised(study: ModuleType) -> None:
    tasks = study.own_units(study.example())
    for t in range(2):
        np.testing.assert_array_equal(tasks.y_std(t), tasks.y[t])


def test_toy(study: ModuleType) -> None:
    data = study.toy(0)
    assert data.tasks.n_tasks == 10 and data.x["train"].shape == (1000, 50)
    np.testing.assert_allclose(np.linalg.norm(data.x["test"], axis=1), 1.0)
    assert (np.abs(data.y["test"]) <= study.SCALES).all()
    assert data.loss(data.y["test"] + study.SCALES, "test") == pytest.approx(np.ones(10))


def test_power_of_weights(study: ModuleType) -> None:
    assert study.slope(5.0 / study.SCALES**2) == pytest.approx((1.0, 0.0), abs=1e-6)
    assert study.slope(np.ones(10)) == pytest.approx((0.0, 0.0), abs=1e-12)


@pytest.mark.slow
def test_conclusions(quick: Callable[..., Any], study: ModuleType) -> None:
    traces, table, compared = quick("loss_weighting")
    first = table.set_index("task").loc["first"]
    slow, fast = (first[f"own units, rate {rate}"] for rate in study.RATES)
    # At Gal's rate the noise is still on its way, below all that the rows allow; and it depends on the rate.
    assert slow < 0.8 * first["lines, low"] and fast > 1.2 * slow
    start = traces[f"own units, rate {study.RATES[0]}"].query("task == 'first'")["noise"]
    assert start.iloc[0] == 1.0 and start.is_monotonic_increasing
    # The posterior holds the truth, and is as wide as the rows allow.
    assert (table["low"] < table["truth"]).all() and (table["truth"] < table["high"]).all()
    np.testing.assert_allclose(table[["low", "high"]], table[["lines, low", "lines, high"]], rtol=0.08)
    powers = compared.set_index("method")
    in_units = powers[powers.index.str.contains("own units")]
    assert (in_units["power of the weights"].abs() < 0.2).all()
    # Without noise in the outcomes a task's noise is its network's misfit, which differs from task to task.
    power, error = powers.loc["posterior", ["power of the weights", "±"]]
    assert abs(power - 1.0) < 2 * error < 0.4
    assert powers.loc["uncertainty, standardised", "power of the weights"] > 0.9
    assert powers.loc["posterior", "mean"] < 0.5 * in_units["mean"].min()
