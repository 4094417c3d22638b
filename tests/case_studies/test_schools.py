"""The case study of schools: the published fits, both ends of the continuum, and how little ranks are known."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal


@pytest.fixture(scope="module")
def study(read_study: Callable[[str], ModuleType]) -> ModuleType:
    return read_study("schools")


def test_data(study: ModuleType) -> None:
    tasks = study.exam()
    assert tasks.n_tasks == 65 and tasks.n_cells.sum() == 4059
    two, schools = study.marks()
    assert two.n_rows == 1905 and schools == 73
    assert [two.n_rows - n for n in two.n_cells] == [202, 180]


def test_left_out_is_what_the_model_says_without_that_pupil(study: ModuleType) -> None:
    tasks = study.exam().select(["1", "48", "54"])
    covariance = np.array([[0.09, 0.02], [0.02, 0.015]])
    found = study.left_out(tasks, covariance)
    school = np.repeat(np.arange(3), tasks.n_cells)
    y, x = np.concatenate(tasks.y), tasks.X[np.concatenate(tasks.rows), 0]
    own = np.column_stack([np.ones(len(x)), x])
    # A flat prior on the common line, as the limit of a wide one.
    cov = (own @ covariance @ own.T) * (school[:, None] == school) + 1e6 * own @ own.T

    def by_hand(variance: float) -> np.ndarray:
        full = cov + variance * np.eye(len(y))
        precision = np.linalg.inv(full)
        sd = 1 / np.sqrt(np.diag(precision))
        gap = precision @ y * sd**2
        return -0.5 * np.log(2 * np.pi * sd**2) - 0.5 * (gap / sd) ** 2

    best = max((by_hand(v) for v in np.linspace(0.3, 1.0, 701)), key=np.sum)
    np.testing.assert_allclose(found, best, atol=2e-3)


def test_estimates_of_the_marks_are_the_likeliest(study: ModuleType) -> None:
    two, _ = study.marks()
    Y = np.full((two.n_rows, 2), np.nan)
    for t in range(2):
        Y[two.rows[t], t] = two.y[t]
    girl, school = two.X[:, 0], two.X[:, 1]

    def likelihood(values: dict[str, float]) -> float:
        v = list(values.values())
        between, within = (np.array([[a, b], [b, c]]) for a, b, c in (v[2:5], v[5:8]))
        parts = []
        for own in (np.flatnonzero(school == s) for s in np.unique(school)):
            n = len(own)
            seen = ~np.isnan(Y[own].ravel())
            level = np.kron(np.ones((n, 1)), np.eye(2))[seen]
            cov = (np.kron(np.ones((n, n)), between) + np.kron(np.eye(n), within))[np.ix_(seen, seen)]
            parts.append((Y[own].ravel()[seen] - np.outer(girl[own], v[:2]).ravel()[seen], level, cov))
        # The mean levels at their optimum, by generalised least squares.
        information = sum(level.T @ np.linalg.solve(cov, level) for _, level, cov in parts)
        mean = np.linalg.solve(information, sum(level.T @ np.linalg.solve(cov, r) for r, level, cov in parts))
        return float(sum(multivariate_normal(level @ mean, cov).logpdf(r) for r, level, cov in parts))

    estimates = {name: value for name, value in study.LIKELIEST.items() if name != study.CORRELATION}
    best = likelihood(estimates)
    for name, value in estimates.items():
        for factor in (0.97, 1.03):
            assert likelihood(estimates | {name: factor * value}) < best
    a, b, c = (estimates[f"schools, {what}"] for what in ("written", "covariance", "course"))
    assert study.LIKELIEST[study.CORRELATION] == pytest.approx(b / np.sqrt(a * c), abs=1e-3)


@pytest.mark.slow
def test_conclusions(quick: Callable[..., Any], study: ModuleType) -> None:
    agreement, scale, table, both = quick("schools")

    def inside(found: pd.DataFrame) -> np.ndarray:
        return (found["low"] < found["likeliest"]).to_numpy() & (found["likeliest"] < found["high"]).to_numpy()

    assert dict(zip(agreement["quantity"], agreement["likeliest"], strict=True)) == study.PUBLISHED
    assert inside(agreement).all() and inside(both).all()
    # Both ends predict worse, merging by far, and nothing on the way is better than what was inferred.
    merged, decoupled = scale.iloc[0], scale.iloc[-1]
    assert merged["difference"] < -5 * merged["se"] < 0 and decoupled["difference"] < -2 * decoupled["se"] < 0
    assert merged["difference"] < 5 * decoupled["difference"] and (scale["difference"] <= 2 * scale["se"]).all()
    # Small schools lean on the others; ranks are known to a third of the table.
    own = table.sort_values("pupils")["own"].to_numpy()
    assert own[0] < 0.4 and own[-1] > 0.9
    assert (table["high"] - table["low"]).median() > 15 and (table["low"] == 1).sum() > 1
    girls = both.set_index("quantity").loc[["girls, written", "girls, course"]]
    assert girls["high"].iloc[0] < 0 < girls["low"].iloc[1]
    correlation = both.set_index("quantity").loc[study.CORRELATION]
    assert correlation["low"] > 0 and correlation["high"] < 0.8
