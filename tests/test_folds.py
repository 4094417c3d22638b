"""Rows left out at random, by group and by time; verdicts that drift; tasks that are protected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import bmtl
from bmtl import Folds, TaskError
from bmtl.advice import confirm
from bmtl.advice.confirm import Trial
from bmtl.advice.decide import harmed_by
from bmtl.arrangement import Arrangement
from bmtl.models import SharedTrunk
from bmtl.trunks import Identity


def tasks_of(n: int = 60, seed: int = 0) -> bmtl.Tasks:
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.normal(size=n), np.repeat(np.arange(n // 10), 10)])
    Y = X[:, :1] + 0.3 * rng.normal(size=(n, 2))
    Y[::7, 1] = np.nan
    return bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 2, names=["a", "b"], inputs=["x", "year"])


def test_rows_are_left_out_once() -> None:
    tasks = tasks_of()
    for folds in (Folds.by_row(4), Folds.by_group("year", 4), Folds.by_group(np.array(list("uvw") * 20))):
        parts = folds.split(tasks, seed=1)
        assert np.sum([out for _, out in parts], axis=0).tolist() == [1] * 60
        assert all(np.array_equal(train, ~out) for train, out in parts)
    assert len(parts) == 3


def test_groups_stay_together_and_folds_are_even() -> None:
    group = np.repeat(np.arange(9), [20, 12, 8, 5, 5, 4, 3, 2, 1])
    parts = Folds.by_group(group, 3).split(tasks_of(), seed=2)
    for _, out in parts:
        assert len(set(group[out]) & set(group[~out])) == 0
    assert sorted(out.sum() for _, out in parts) == [20, 20, 20]
    other = Folds.by_group(group, 3).split(tasks_of(), seed=3)
    assert any(not np.array_equal(one[1], two[1]) for one, two in zip(parts, other, strict=True))


def test_time_runs_forward() -> None:
    rng = np.random.default_rng(3)
    year = rng.integers(2000, 2012, 60)
    parts = Folds.by_time(year, 3).split(tasks_of(), seed=0)
    assert len(parts) == 3
    for train, out in parts:
        assert year[train].max() < year[out].min()
        assert 5 <= out.sum() <= 30
    assert np.array_equal(parts[1][0], parts[0][0] | parts[0][1])
    by_name = Folds.by_time("year", 5).split(tasks_of(), seed=0)
    assert [out.sum() for _, out in by_name] == [10] * 5
    days = np.datetime64("2020-01-01") + np.arange(60)
    assert [out.sum() for _, out in Folds.by_time(days, 2).split(tasks_of(), seed=0)] == [20, 20]


def test_two_times_are_two_blocks() -> None:
    late = np.arange(60) > 56
    ((train, out),) = Folds.by_time(late, 5).split(tasks_of(), seed=0)
    assert np.array_equal(out, late) and np.array_equal(train, ~late)


@pytest.mark.parametrize(
    ("folds", "match"),
    [
        (Folds.by_time("when"), r"no input 'when'; give one value a row, or one of \['x', 'year'\]"),
        (Folds.by_group(["u"] * 60), "need two groups, but all rows have 'u'"),
        (Folds.by_group(["u", "v"]), r"one value for each of 60 rows, got \(2,\)"),
        (Folds.by_time([1.0] * 59 + [np.nan]), "no value at row 59"),
        (Folds.by_group(["u"] * 59 + [None]), "no value at row 59"),
        (Folds.by_row(61), "between 2 and the 60 rows, got 61"),
    ],
)
def test_errors(folds, match) -> None:
    with pytest.raises(TaskError, match=match):
        bmtl.advise(SharedTrunk(Identity()), tasks_of(), folds=folds)


def test_too_few_folds() -> None:
    for make in (Folds.by_row, lambda k: Folds.by_group("year", k)):
        with pytest.raises(ValueError, match="at least 2, got 1"):
            make(1)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Folds.by_time("year", 0)
    with pytest.raises(TaskError, match=r"protect names unknown tasks: \['c'\]; the tasks are \['a', 'b'\]"):
        bmtl.advise(SharedTrunk(Identity()), tasks_of(), protect=["c"])


def trials(difference: float, sd: float = 0.01):
    """Two trials of 60 cells; sharing changes the first task by so many nats in all, with that scatter."""
    tasks = tasks_of()
    rng = np.random.default_rng(4)
    apart = [rng.normal(size=len(rows)) for rows in tasks.rows]
    noise = sd * rng.normal(size=60)
    shared = [apart[0] + difference / 60 + noise - noise.mean(), apart[1]]
    make = lambda arrangement, pointwise: Trial(arrangement, tasks, list(tasks.rows), pointwise, "")  # noqa: E731
    return make(Arrangement.shared(tasks.names), shared), make(Arrangement.decoupled(tasks.names), apart)


def test_protected_tasks_take_no_harm() -> None:
    assert harmed_by(*trials(-2.0), protect=()) == []
    assert harmed_by(*trials(-2.0), protect=("a",)) == ["a"]
    assert harmed_by(*trials(-2.0), protect=("b",)) == []
    assert harmed_by(*trials(-10.0), protect=()) == ["a"]
    # Within two standard errors it is noise, for whomever.
    assert harmed_by(*trials(-2.0, sd=1.0), protect=("a",)) == []


@pytest.fixture(scope="module")
def yearly():
    """One function of two tasks, in six years."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=(120, 2))
    Y = (x @ [1.0, 0.5])[:, None] + 0.3 * rng.normal(size=(120, 2))
    Y[::10, 1] = np.nan
    tasks = bmtl.Tasks.from_arrays(x, Y, ["gaussian"] * 2, names=["steady", "turning"])
    return tasks, np.repeat(np.arange(6), 20)


def advised(tasks, year) -> bmtl.Advice:
    return bmtl.advise(SharedTrunk(Identity()), tasks, folds=Folds.by_time(year, 2), restarts=1, seed=0)


def test_later_rows_are_predicted_from_earlier_ones(yearly) -> None:
    tasks, year = yearly
    advice = advised(tasks, year)
    assert advice.evidence == "2-fold refits, later rows left out"
    n = advice.differences.set_index(["task", "arrangement"])["n"]
    assert n["steady", "recommended"] == 80
    assert n["turning", "recommended"] == np.sum(year[tasks.rows[1]] >= 2)
    assert advice.pairs["verdict"].tolist() == ["merge"] and advice.pairs["drifting"].tolist() == [False]
    assert advice.why("turning", "steady").startswith("steady and turning: merge. ")
    assert advice.why("steady") == advice.tasks["why"][0]
    with pytest.raises(TaskError, match="no task 'other'"):
        advice.why("other")
    with pytest.raises(TaskError, match="needs two tasks"):
        advice.why("steady", "steady")


def test_what_only_later_rows_speak_against_is_flagged(yearly, monkeypatch) -> None:
    """Refits in which sharing costs the second task a fifth of a nat a cell, but on later rows only."""
    tasks, year = yearly
    apart = Arrangement.decoupled(tasks.names)

    class Drifting(confirm.Trials):
        def run(self, arrangements):
            return [
                trial if self.folds.kind == "row" or trial.arrangement == apart
                else replace(trial, pointwise=[trial.pointwise[0], trial.pointwise[1] - 0.2])
                for trial in super().run(arrangements)
            ]

    monkeypatch.setattr("bmtl.advice._advise.Trials", Drifting)
    advice = advised(tasks, year)
    assert advice.pairs["drifting"].tolist() == [True]
    assert advice.pairs["verdict"].tolist() == ["undecided"]
    assert "the relation drifts" in advice.pairs["why"][0]
    assert advice.arrangement == apart
    assert any(warning.startswith("Drifting: sharing does turning no harm") for warning in advice.warnings)
