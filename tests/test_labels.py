"""Outcomes with labels, and outcomes with trials: how columns become codes, and every refusal."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import polars as pl
import pytest

from bmtl.errors import TaskError
from bmtl.families import Categorical, Ordinal
from bmtl.tasks import Tasks

frames = pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
N = 12
X = np.random.default_rng(0).normal(size=N)
LEVELS = ("never", "once", "often")


def raises(*quoted: str):
    """An expectation that the message contains every one of these."""
    import re

    return pytest.raises(TaskError, match="".join(f"(?=[\\s\\S]*{re.escape(part)})" for part in quoted))


def made(frame, values, family) -> Tasks:
    return Tasks.from_frame(frame({"x": X, "y": values}), ["x"], {"y": family})


@frames
def test_text_is_sorted_and_may_be_missing(frame) -> None:
    values = ["dog", "cat", "emu", None] * 3
    tasks = made(frame, values, "categorical")
    assert tasks.families == (Categorical(("cat", "dog", "emu")),)
    np.testing.assert_array_equal(tasks.y[0], [1, 0, 2] * 3)
    np.testing.assert_array_equal(tasks.rows[0], np.flatnonzero(np.arange(N) % 4 != 3))
    assert (tasks.y_centre[0], tasks.y_scale[0]) == (0.0, 1.0)


@pytest.mark.parametrize("family", ["categorical", "ordinal"])
def test_declared_order_is_kept(family: str) -> None:
    values = ["often", "never", "once"] * 4
    ordered = pd.Categorical(values, LEVELS, ordered=True)
    for frame, column in ((pd.DataFrame, ordered), (pl.DataFrame, pl.Series(values, dtype=pl.Enum(LEVELS)))):
        tasks = made(frame, column, family)
        assert tasks.families[0].labels == LEVELS
        np.testing.assert_array_equal(tasks.y[0], [2, 0, 1] * 4)


@frames
def test_whole_numbers_are_in_their_order(frame) -> None:
    """Also those that a missing value has made floats; 10 is after 9."""
    for values in ([10, 9, 1] * 4, [10.0, 9.0, 1.0, np.nan] * 3):
        tasks = made(frame, values, "ordinal")
        assert tasks.families == (Ordinal(("1", "9", "10")),)
        np.testing.assert_array_equal(tasks.y[0], [2, 1, 0] * (len(tasks.y[0]) // 3))


@frames
def test_given_labels_are_kept_though_some_never_occur(frame) -> None:
    for family in (Ordinal(("low", "mid", "high", "top")), Categorical(("low", "mid", "high", "top"))):
        tasks = made(frame, ["top", "low", "mid"] * 4, family)
        assert tasks.families == (family,)
        np.testing.assert_array_equal(tasks.y[0], [3, 0, 1] * 4)


def test_codes_of_arrays() -> None:
    Y = np.column_stack([np.tile([2.0, 0.0, 1.0], 4), np.tile([3.0, 0.0, np.nan], 4)])
    tasks = Tasks.from_arrays(X[:, None], Y, ["categorical", Ordinal(("a", "b", "c", "d"))])
    assert tasks.families == (Categorical(("0", "1", "2")), Ordinal(("a", "b", "c", "d")))
    np.testing.assert_array_equal(tasks.y[1], [3, 0] * 4)


def test_groups_have_the_labels_of_all() -> None:
    frame = pd.DataFrame({"x": X, "y": ["a", "b", "c"] * 2 + ["c", "d", "d"] * 2, "g": ["u"] * 6 + ["v"] * 6})
    tasks = Tasks.from_groups(frame, ["x"], "y", "g", "categorical")
    assert tasks.families == (Categorical(("a", "b", "c", "d")),) * 2
    np.testing.assert_array_equal(tasks.y[1], [2, 3, 3] * 2)


def test_labels_there_and_back() -> None:
    """JSON makes lists of tuples."""
    tasks = made(pd.DataFrame, ["top", "low", "mid"] * 4, Ordinal(("low", "mid", "high", "top")))
    meta, arrays = tasks.spec()
    again = Tasks.from_spec(json.loads(json.dumps(meta)), arrays)
    assert again.families == tasks.families and isinstance(again.families[0].levels, tuple)
    np.testing.assert_array_equal(again.y[0], tasks.y[0])


@frames
def test_text_has_no_order(frame) -> None:
    with raises("outcome 'y' is ordinal", "has no order", "Ordinal(levels=('never', 'often', 'once'))", "ascending"):
        made(frame, ["often", "never", "once"] * 4, "ordinal")


def test_categories_that_are_not_ordered_have_no_order() -> None:
    """astype("category") sorts by the alphabet."""
    with raises("outcome 'y' is ordinal", "has no order"):
        made(pd.DataFrame, pd.Categorical(["often", "never", "once"] * 4), "ordinal")


@frames
@pytest.mark.parametrize("values", [["yes", "no"] * 6, [True, False] * 6, [1, 0] * 6])
def test_two_labels_are_a_bernoulli(frame, values) -> None:
    with raises("outcome 'y'", "at least 3", "bernoulli"):
        made(frame, values, "categorical")


def test_labels_that_never_occur() -> None:
    frame = pd.DataFrame({"x": X, "y": pd.Categorical(["often", "never"] * 6, LEVELS, ordered=True)})
    with raises("outcome 'y' has levels that never occur: 'once'", "Ordinal(levels=('never', 'once', 'often'))"):
        Tasks.from_frame(frame, ["x"], {"y": "ordinal"})
    with raises("outcome 'y0' has categories that never occur: '1', '2'"):
        Tasks.from_arrays(X[:, None], np.tile([0.0, 3.0, 4.0], 4)[:, None], ["categorical"])


@frames
def test_labels_that_are_not_the_familys(frame) -> None:
    with raises("outcome 'y' has labels that are none of its levels: row 1 ('Once'), row 4 ('Once')", "known: 'never'"):
        made(frame, ["often", "Once", "never"] * 4, Ordinal(LEVELS))


@frames
def test_cells_that_are_no_labels(frame) -> None:
    with raises("outcome 'y' has cells that are no labels: row 2 (1.5)"):
        made(frame, [0.0, 1.0, 1.5, 2.0] * 3, "categorical")


def test_mixed_cells_are_no_labels() -> None:
    with raises("outcome 'y' is neither numbers, booleans nor levels", "row 0 ('a')"):
        made(pd.DataFrame, ["a", 1, "b"] * 4, "categorical")


def test_codes_outside_of_the_labels() -> None:
    for bad in (3.0, 0.5, -1.0):
        with raises("outcome 'y0' has values that categorical does not allow", f"row 5 ({bad:g})"):
            Y = np.tile([0.0, 1.0, 2.0], 4)
            Y[5] = bad
            Tasks.from_arrays(X[:, None], Y[:, None], [Categorical(("a", "b", "c"))])


# Trials ---------------------------------------------------------------------------------------------------------------


@frames
def test_trials_are_needed_and_checked(frame) -> None:
    base = {"x": X, "wins": [1, 0, 3] * 4, "games": [4.0, 2.0, 3.0] * 4}

    def tasks(**changes) -> Tasks:
        return Tasks.from_frame(frame(base | changes), ["x"], {"wins": "binomial"}, exposure={"wins": "games"})

    np.testing.assert_array_equal(tasks().exposure[0], base["games"])
    with raises("task 'wins' is binomial and needs an exposure: the number of trials"):
        Tasks.from_frame(frame(base), ["x"], {"wins": "binomial"})
    with raises("task 'wins' is binomial and needs an exposure"):
        Tasks.from_groups(frame(base | {"g": ["u", "v"] * 6}), ["x"], "wins", "g", "binomial")
    for bad in (2.0, 3.5, 0.0, np.nan, np.inf):
        with raises("the exposure of task 'wins' must be the number of trials", f"row 2 ({bad:g})"):
            tasks(games=[4.0, 2.0, bad, *[4.0] * 9])
    with raises("outcome 'wins' has values that binomial does not allow (whole numbers ≥ 0): row 1 (0.5)"):
        tasks(wins=[1.0, 0.5, *[2.0] * 10])


def test_shares_and_sizes_outside_of_the_support() -> None:
    for family, bad in [("beta", 0.0), ("beta", 1.0), ("gamma", 0.0), ("lognormal", -1.0)]:
        Y = np.linspace(0.1, 0.9, N)
        Y[3] = bad
        with raises(f"outcome 'y0' has values that {family} does not allow", f"row 3 ({bad:g})"):
            Tasks.from_arrays(X[:, None], Y[:, None], [family])
