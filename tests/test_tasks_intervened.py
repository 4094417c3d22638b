"""Cells that were set from outside."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

from bmtl.errors import TaskError
from bmtl.tasks import Tasks

N = 12


def frame(kind=pd.DataFrame):
    rng = np.random.default_rng(0)
    y = rng.normal(size=N).tolist()
    y[2] = None
    return kind({
        "x": rng.normal(size=N), "dose": y, "effect": rng.normal(size=N), "set": [True, False, True] * 4,
        "code": [0, 1, 2] * 4,
    })


def made(**intervened) -> Tasks:
    return Tasks.from_frame(frame(), ["x"], {"dose": "gaussian", "effect": "gaussian"}, intervened=intervened)


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame])
def test_a_column_or_a_mask(kind):
    outputs = {"dose": "gaussian", "effect": "gaussian"}
    by_column = Tasks.from_frame(frame(kind), ["x"], outputs, intervened={"dose": "set"})
    by_mask = Tasks.from_frame(frame(kind), ["x"], outputs, intervened={"dose": np.array([True, False, True] * 4)})
    # The third row has no outcome: there is nothing to mark.
    expected = np.delete(np.array([True, False, True] * 4), 2)
    for tasks in (by_column, by_mask):
        np.testing.assert_array_equal(tasks.intervened[0], expected)
        assert not tasks.intervened[1].any()


def test_a_matrix_or_its_transpose():
    rng = np.random.default_rng(1)
    marks = rng.random((N, 2)) < 0.5
    X, Y = rng.normal(size=(N, 1)), rng.normal(size=(N, 2))
    for given in (marks, marks.T, {"y0": marks[:, 0], "y1": marks[:, 1]}):
        tasks = Tasks.from_arrays(X, Y, ["gaussian"] * 2, intervened=given)
        np.testing.assert_array_equal(np.stack(tasks.intervened), marks.T)


def test_none_is_empty():
    assert made().intervened == ()
    assert made(dose=np.zeros(N, dtype=bool)).intervened == ()


def test_kept_by_whatever_makes_tasks_of_tasks():
    tasks = made(dose="set")
    marks = tasks.intervened[0]
    chosen = tasks.select(["effect", "dose"])
    np.testing.assert_array_equal(chosen.intervened[1], marks)
    kept = tasks.keep_cells([np.arange(11) < 5, np.arange(12) < 7])
    np.testing.assert_array_equal(kept.intervened[0], marks[:5])
    copied = tasks.permuted("dose", seed=0)
    assert copied.intervened[2].sum() == marks.sum()
    order = np.argsort(copied.y[2])
    np.testing.assert_array_equal(copied.intervened[2][order], marks[np.argsort(tasks.y[0])])
    meta, arrays = tasks.spec()
    restored = Tasks.from_spec(meta, arrays)
    for before, after in zip(tasks.intervened, restored.intervened, strict=True):
        np.testing.assert_array_equal(before, after)
        assert not after.flags.writeable


@pytest.mark.parametrize(("intervened", "message"), [
    ({"cost": "set"}, "intervened names unknown tasks: 'cost'; the tasks are 'dose', 'effect'"),
    ({"dose": "sett"}, "no such column: 'sett'"),
    ({"dose": "code"}, "intervened of task 'dose' must be true or false: row 2"),
    ({"dose": np.ones(3, dtype=bool)}, "intervened of task 'dose' needs 12 booleans, got shape \\(3,\\)"),
    ({"dose": np.ones(N, dtype=bool)}, "every cell of task 'dose' is intervened"),
])
def test_errors_name_the_task(intervened, message):
    with pytest.raises(TaskError, match=message):
        made(**intervened)


def test_arrays_have_no_columns_and_one_shape():
    rng = np.random.default_rng(2)
    X, Y = rng.normal(size=(N, 1)), rng.normal(size=(N, 2))
    with pytest.raises(TaskError, match="must be a mask, got the name 'set'"):
        Tasks.from_arrays(X, Y, ["gaussian"] * 2, intervened={"y0": "set"})
    with pytest.raises(TaskError, match=r"shape \(12, 2\) or \(2, 12\).*got shape \(12, 3\)"):
        Tasks.from_arrays(X, Y, ["gaussian"] * 2, intervened=np.zeros((N, 3), dtype=bool))
