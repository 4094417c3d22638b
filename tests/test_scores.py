"""Outcomes that a fit has not seen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

import bmtl
from bmtl import TaskError, Tasks
from bmtl.models import SharedTrunk
from bmtl.noise import ByGroup
from bmtl.trunks import Identity

pytestmark = pytest.mark.filterwarnings("ignore::bmtl.errors.ConvergenceWarning")
SHORT = {"max_steps": 500, "restarts": 1, "draws": 60}


def some(tasks: Tasks, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and outcomes of wide tasks at some rows."""
    Y = np.full((tasks.n_rows, tasks.n_tasks), np.nan)
    for t, own in enumerate(tasks.rows):
        Y[own, t] = tasks.y[t]
    return np.asarray(tasks.X)[rows], Y[rows]


@pytest.fixture(scope="module")
def fitted(pair):
    return bmtl.fit(SharedTrunk(Identity()), pair, seed=1, **SHORT)


def test_against_the_predictive_density_by_hand(fitted, pair) -> None:
    """New rows, in the user's units, standardised by the constants of the fit and not by their own."""
    X, Y = some(pair, slice(10, 25))
    Y = Y + np.array([1.0, -2.0])
    Y[3, 1] = np.nan
    found = fitted.score(Tasks.from_arrays(X, Y, ["gaussian"] * 2, names=pair.names))
    mean = fitted.predict(X)["mean"]
    assert list(found.columns) == ["task", "n", "lpd", "se"] and found["n"].tolist() == [15, 14]
    for t, name in enumerate(pair.names):
        there = np.isfinite(Y[:, t])
        centre, noise = mean[name].values[0][:, there], fitted.noise[name][0][:, None]
        density = logsumexp(stats.norm.logpdf(Y[there, t], centre, noise), axis=0) - np.log(len(centre))
        assert found["lpd"][t] == pytest.approx(density.mean(), rel=1e-4)
        assert found["se"][t] == pytest.approx(density.std() / np.sqrt(there.sum()), rel=1e-3)


def test_the_tasks_themselves(fitted, pair) -> None:
    found = fitted.score(pair)
    inside = [logsumexp(own[0], axis=0).mean() - np.log(60) for own in fitted.log_likelihood]
    np.testing.assert_allclose(found["lpd"], inside, rtol=1e-5)


def test_some_of_the_tasks_in_another_order(fitted, pair) -> None:
    X, Y = some(pair, slice(0, 12))
    both = fitted.score(Tasks.from_arrays(X, Y, ["gaussian"] * 2, names=pair.names))
    one = fitted.score(Tasks.from_arrays(X, Y[:, [1]], ["gaussian"], names=["v"]))
    assert one["task"].tolist() == ["v"] and one["lpd"][0] == pytest.approx(both["lpd"][1], rel=1e-6)


def test_groups(grouped) -> None:
    """The long layout, scored at its own rows."""
    tasks = grouped("poisson")
    fit = bmtl.fit(SharedTrunk(Identity()), tasks, **SHORT)
    inside = [logsumexp(own[0], axis=0).mean() - np.log(60) for own in fit.log_likelihood]
    np.testing.assert_allclose(fit.score(tasks)["lpd"], inside, rtol=1e-5)


def test_noise_by_group_of_rows(pair) -> None:
    labels = np.where(np.arange(pair.n_rows) % 3 == 0, "a", "b")
    tasks = pair.with_noise_groups(labels)
    fit = bmtl.fit(SharedTrunk(Identity(), noise=ByGroup()), tasks, **SHORT)
    X, Y = some(pair, slice(0, 9))
    new = Tasks.from_arrays(X, Y, ["gaussian"] * 2, names=pair.names)
    with pytest.raises(TaskError, match="give the group of each new row"):
        fit.score(new)
    # In another order than those of the fit.
    ours = fit.score(new.with_noise_groups(labels[:9]))
    backwards = Tasks.from_arrays(X[::-1], Y[::-1], ["gaussian"] * 2, names=pair.names)
    theirs = fit.score(backwards.with_noise_groups(labels[:9][::-1]))
    np.testing.assert_allclose(ours["lpd"], theirs["lpd"], rtol=1e-5)
    other = fit.score(new.with_noise_groups(np.where(labels[:9] == "a", "b", "a")))
    assert np.abs(other["lpd"] - ours["lpd"]).max() > 1e-3


def test_what_cannot_be_scored(fitted, pair, grouped) -> None:
    X, Y = some(pair, slice(0, 12))
    with pytest.raises(TaskError, match="not in the fit: 'w'"):
        fitted.score(Tasks.from_arrays(X, Y, ["gaussian"] * 2, names=["u", "w"]))
    with pytest.raises(TaskError, match=r"another family.*'v'"):
        fitted.score(Tasks.from_arrays(X, Y, ["gaussian", "student_t"], names=pair.names))
    with pytest.raises(TaskError, match="inputs missing"):
        fitted.score(Tasks.from_arrays(X[:, :1], Y, ["gaussian"] * 2, names=pair.names))
    long = grouped("gaussian")
    other = bmtl.fit(SharedTrunk(Identity()), long, **SHORT)
    with pytest.raises(TaskError, match="long, the new ones wide"):
        other.score(dataclasses.replace(long, layout="wide"))
