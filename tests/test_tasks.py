"""Tasks: reading, encoding, standardising, taking apart and restoring."""

from __future__ import annotations

import json
import time
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest

from bmtl.errors import TaskWarning
from bmtl.families import StudentT
from bmtl.tasks import Tasks

FRAMES = [pd.DataFrame, pl.DataFrame]
frames = pytest.mark.parametrize("frame", FRAMES, ids=["pandas", "polars"])
OUTPUTS = {"any_visit": "bernoulli", "visits": "poisson", "spend": "gaussian"}


def data(n: int = 40, seed: int = 0) -> dict[str, list]:
    rng = np.random.default_rng(seed)
    visits = rng.poisson(2.0, n)
    return {
        "age": rng.normal(50, 10, n).tolist(),
        "income": rng.gamma(2.0, 1000.0, n).tolist(),
        "region": [("west", "east", "north")[i % 3] for i in range(n)],
        "urban": [bool(i % 2) for i in range(n)],
        "any_visit": (visits > 0).astype(int).tolist(),
        "visits": visits.tolist(),
        "spend": [None if i in (3, 7) else float(v) for i, v in enumerate(rng.normal(100, 20, n))],
        "years": rng.uniform(0.5, 2.0, n).tolist(),
    }


@pytest.fixture
def columns() -> dict[str, list]:
    return data()


@pytest.fixture
def tasks(columns) -> Tasks:
    return Tasks.from_frame(
        pd.DataFrame(columns), ["age", "region"], OUTPUTS, importance={"spend": 2.0}, exposure={"visits": "years"}
    )


def same(a: Tasks, b: Tasks) -> None:
    assert (a.names, a.families, a.inputs, a.layout, a.encoder) == (b.names, b.families, b.inputs, b.layout, b.encoder)
    for name in ("X", "x_centre", "x_scale", "Z", "importance", "y_centre", "y_scale", "n_cells"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for name in ("rows", "y", "exposure"):
        for left, right in zip(getattr(a, name), getattr(b, name), strict=True):
            np.testing.assert_array_equal(left, right)
            assert left.dtype == right.dtype


@frames
def test_from_frame(frame, columns):
    tasks = Tasks.from_frame(
        frame(columns), ["age", "income"], OUTPUTS, importance={"spend": 2.0}, exposure={"visits": "years"}
    )
    assert tasks.names == ("any_visit", "visits", "spend")
    assert [family.name for family in tasks.families] == ["bernoulli", "poisson", "gaussian"]
    assert (tasks.inputs, tasks.n_rows, tasks.n_tasks, tasks.layout) == (("age", "income"), 40, 3, "wide")
    np.testing.assert_array_equal(tasks.X[:, 0], columns["age"])
    np.testing.assert_array_equal(tasks.n_cells, [40, 40, 38])
    observed = [i for i in range(40) if i not in (3, 7)]
    np.testing.assert_array_equal(tasks.rows[2], observed)
    np.testing.assert_array_equal(tasks.y[2], [columns["spend"][i] for i in observed])
    np.testing.assert_array_equal(tasks.exposure[1], columns["years"])
    np.testing.assert_array_equal(tasks.exposure[2], np.ones(38))
    np.testing.assert_array_equal(tasks.importance, [1.0, 1.0, 2.0])
    np.testing.assert_array_equal((tasks.y_centre[:2], tasks.y_scale[:2]), ([0, 0], [1, 1]))
    np.testing.assert_allclose([tasks.y_std(2).mean(), tasks.y_std(2).std()], [0, 1], atol=1e-12)
    np.testing.assert_allclose(tasks.Z.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(tasks.Z.std(axis=0), 1)
    assert tasks.Z is tasks.Z


def test_pandas_and_polars_lazy_and_eager_agree(columns):
    frame = pl.DataFrame(columns)
    reference = Tasks.from_frame(pd.DataFrame(columns), ["age", "region", "urban"], OUTPUTS)
    same(reference, Tasks.from_frame(frame, ["age", "region", "urban"], OUTPUTS))
    same(reference, Tasks.from_frame(frame.lazy(), ["age", "region", "urban"], OUTPUTS))


def test_frames_and_arrays_agree(columns):
    frame = pd.DataFrame(columns)
    a = Tasks.from_frame(frame, ["age", "income"], OUTPUTS, exposure={"visits": "years"}, importance={"spend": 3})
    exposure = np.full((40, 3), np.nan)
    exposure[:, 1] = frame["years"]
    b = Tasks.from_arrays(
        frame[["age", "income"]], frame[list(OUTPUTS)], list(OUTPUTS.values()), names=list(OUTPUTS),
        inputs=["age", "income"], importance=[1, 1, 3], exposure=exposure,
    )
    same(a, b)


def test_arrays_are_read_only_and_detached_from_the_users():
    X, Y = np.random.default_rng(0).normal(size=(2, 20, 2))
    tasks = Tasks.from_arrays(X, Y, ["gaussian"] * 2)
    X[0], Y[0] = 99.0, 99.0
    assert not np.any(tasks.X == 99) and not np.any(tasks.y[0] == 99)
    for array in (tasks.X, tasks.Z, tasks.x_scale, tasks.rows[0], tasks.y[1], tasks.exposure[0], tasks.importance):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    assert tasks.names == ("y0", "y1") and tasks.inputs == ("x0", "x1")


@frames
def test_booleans_and_levels_are_encoded(frame, columns):
    tasks = Tasks.from_frame(frame(columns), ["urban", "region"], {"spend": "gaussian"})
    assert tasks.inputs == ("urban", "region[north]", "region[west]")
    np.testing.assert_array_equal(tasks.X[:, 0], np.array(columns["urban"], dtype=float))
    np.testing.assert_array_equal(tasks.X[:, 2], [region == "west" for region in columns["region"]])


@pytest.mark.parametrize(
    "series",
    [
        pd.Series(pd.Categorical(["low", "high", "mid"] * 4, ["low", "mid", "high"], ordered=True)),
        pd.Series(pd.Categorical(["low", "high", "mid"] * 4, ["low", "unused", "mid", "high"])),
        pl.Series(["low", "high", "mid"] * 4, dtype=pl.Enum(["low", "mid", "high"])),
    ],
    ids=["pandas ordered", "pandas with unused level", "polars enum"],
)
def test_declared_order_of_categories_is_kept(series):
    make = pd.DataFrame if isinstance(series, pd.Series) else pl.DataFrame
    tasks = Tasks.from_frame(make({"dose": series, "y": np.arange(12.0) ** 2}), ["dose"], {"y": "gaussian"})
    assert tasks.inputs == ("dose[mid]", "dose[high]")


def test_order_of_a_polars_categorical_is_alphabetical_not_that_of_the_rows():
    frame = pl.DataFrame({"a": pl.Series(["z", "m", "b"] * 4, dtype=pl.Categorical), "y": np.arange(12.0)})
    assert Tasks.from_frame(frame, ["a"], {"y": "gaussian"}).inputs == ("a[m]", "a[z]")


def test_columns_of_python_objects_and_nullable_columns():
    frame = pd.DataFrame({
        "flag": pd.Series([True, False] * 6, dtype=object),
        "label": pd.Series(["a", "b", "c"] * 4, dtype=object),
        "code": pd.Series(list(range(12)), dtype="Int64"),
        "y": pd.Series([None, 1, 2, 5] * 3, dtype="Int64"),
        "w": pd.Series([True, None, False] * 4, dtype=object),
    })
    tasks = Tasks.from_frame(frame, ["flag", "label", "code"], {"y": "poisson", "w": "bernoulli"})
    assert tasks.inputs == ("flag", "label[b]", "label[c]", "code")
    np.testing.assert_array_equal(tasks.n_cells, [9, 8])


@frames
def test_encode_new_frames_and_arrays(frame, columns, tasks):
    np.testing.assert_array_equal(tasks.encode(frame(columns)), tasks.X)
    np.testing.assert_array_equal(tasks.standardise(frame(columns)), tasks.Z)
    np.testing.assert_array_equal(tasks.encode(tasks.X), tasks.X)
    one = frame({"region": ["west"], "age": [30]})
    np.testing.assert_array_equal(tasks.encode(one), [[30.0, 0.0, 1.0]])


@frames
def test_no_inputs(frame, columns):
    own = Tasks.from_frame(frame(columns), [], {"spend": "gaussian", "visits": "poisson"})
    assert own.inputs == ()
    assert own.X.shape == own.Z.shape == (40, 0)
    assert repr(own).startswith("Tasks: 2 on 40 rows, without inputs\n")
    assert own.encode(frame(columns)).shape == own.encode(np.empty((40, 0))).shape == (40, 0)
    same(Tasks.from_spec(*own.spec()), own)
    Y = np.random.default_rng(0).normal(size=(9, 2))
    for X in (None, np.empty((9, 0))):
        assert Tasks.from_arrays(X, Y, ["gaussian"] * 2).X.shape == (9, 0)


def test_encode_accepts_the_full_width_and_the_kept_width():
    X = np.random.default_rng(0).normal(size=(20, 3))
    X[:, 1] = 4.0
    with pytest.warns(TaskWarning, match="'x1' is constant"):
        tasks = Tasks.from_arrays(X, X[:, :1] ** 2, ["gaussian"])
    assert tasks.inputs == ("x0", "x2")
    np.testing.assert_array_equal(tasks.encode(X), X[:, [0, 2]])
    np.testing.assert_array_equal(tasks.encode(X[:, [0, 2]]), X[:, [0, 2]])
    np.testing.assert_array_equal(tasks.encode(pd.DataFrame(X[:, [0, 2]], columns=["x0", "x2"])), X[:, [0, 2]])


@frames
def test_from_groups(frame):
    rng = np.random.default_rng(1)
    school = [("school 10", "school 2", "school 1")[i % 3] for i in range(30)]
    score = rng.normal(500, 50, 30)
    score[4] = np.nan
    tasks = Tasks.from_groups(
        frame({"x": rng.normal(size=30), "score": score, "school": school}), ["x"], "score", "school", "gaussian"
    )
    assert tasks.names == ("school 1", "school 2", "school 10") and tasks.layout == "long"
    np.testing.assert_array_equal(tasks.n_cells, [10, 9, 10])
    for t, name in enumerate(tasks.names):
        assert all(school[row] == name for row in tasks.rows[t]) and np.all(np.diff(tasks.rows[t]) > 0)
        np.testing.assert_array_equal(tasks.y[t], score[tasks.rows[t]])
    pooled = np.concatenate([tasks.y_std(t) for t in range(3)])
    np.testing.assert_allclose([pooled.mean(), pooled.std()], [0, 1], atol=1e-12)
    assert np.ptp(tasks.y_centre) == np.ptp(tasks.y_scale) == 0
    assert "missing" not in repr(tasks)


@frames
def test_number_groups_sort_by_value_and_exposures_follow_their_rows(frame):
    rng = np.random.default_rng(2)
    group, years = np.tile([10, 9, -1], 8), rng.uniform(1, 2, 24)
    df = frame({"x": rng.normal(size=24), "n": rng.poisson(3.0, 24), "g": group, "years": years})
    tasks = Tasks.from_groups(df, ["x"], "n", "g", "poisson", exposure="years")
    assert tasks.names == ("-1", "9", "10")
    for rows, exposure in zip(tasks.rows, tasks.exposure, strict=True):
        np.testing.assert_array_equal(exposure, years[rows])


@pytest.mark.parametrize("family", ["gaussian", "student_t", "poisson"])
def test_one_group_may_be_constant(family):
    df = pd.DataFrame({"x": np.arange(12.0), "y": [5] * 6 + list(range(6)), "g": ["a"] * 6 + ["b"] * 6})
    tasks = Tasks.from_groups(df, ["x"], "y", "g", family)
    np.testing.assert_array_equal(tasks.y[0], 5)


def test_student_t_is_standardised_robustly():
    y = np.array([1.0, 2, 3, 4, 100, 5, 6, 7, 8, 9])
    tasks = Tasks.from_arrays(np.arange(10.0)[:, None], y[:, None], [StudentT(dof=5.0)])
    median = np.median(y)
    assert tasks.y_centre[0] == median
    assert tasks.y_scale[0] == pytest.approx(1.4826 * np.median(np.abs(y - median)))
    mostly_zero = np.array([0.0] * 8 + [3, 5])
    tasks = Tasks.from_arrays(np.arange(10.0)[:, None], mostly_zero[:, None], ["student_t"])
    assert tasks.y_scale[0] == pytest.approx(mostly_zero.std())


@pytest.mark.parametrize(("scale", "shift"), [(1e-3, 0), (1e6, -4e5), (-2.5, 7), (1e200, 0), (1e-200, 0)])
@pytest.mark.parametrize("family", ["gaussian", "student_t"])
def test_units_do_not_matter(family, scale, shift):
    rng = np.random.default_rng(3)
    X, Y = rng.normal(size=(30, 2)), rng.normal(size=(30, 1))
    a = Tasks.from_arrays(X, Y, [family])
    b = Tasks.from_arrays(scale * X + shift, scale * Y + shift, [family])
    np.testing.assert_allclose(np.sign(scale) * b.Z, a.Z, atol=1e-9)
    np.testing.assert_allclose(np.sign(scale) * b.y_std(0), a.y_std(0), atol=1e-9)


def test_order_of_tasks_does_not_matter(columns, tasks):
    backwards = Tasks.from_frame(
        pd.DataFrame(columns), ["age", "region"], dict(reversed(OUTPUTS.items())), importance={"spend": 2.0},
        exposure={"visits": "years"},
    )
    same(backwards.select(tasks.names), tasks)
    same(tasks.select(backwards.names), backwards)


def test_select_keeps_rows_and_standardisation(tasks):
    part = tasks.select(["spend", "visits"])
    assert part.names == ("spend", "visits") and part.importance.tolist() == [2.0, 1.0]
    np.testing.assert_array_equal(part.Z, tasks.Z)
    np.testing.assert_array_equal(part.y_std(0), tasks.y_std(2))
    np.testing.assert_array_equal(part.exposure[1], tasks.exposure[1])


def test_keep_cells_keeps_constants_even_of_a_constant_fold(tasks):
    masks = [np.zeros(n, dtype=bool) for n in tasks.n_cells]
    masks[0][np.flatnonzero(tasks.y[0] == 1)] = True
    masks[2][[0, 5]] = True
    fold = tasks.keep_cells(masks)
    assert set(fold.y[0]) == {1.0}
    np.testing.assert_array_equal(fold.n_cells, [masks[0].sum(), 0, 2])
    np.testing.assert_array_equal(fold.y_std(2), tasks.y_std(2)[[0, 5]])
    np.testing.assert_array_equal(fold.rows[2], tasks.rows[2][[0, 5]])
    np.testing.assert_array_equal(fold.Z, tasks.Z)


def test_permuted_moves_outcomes_with_their_exposures(tasks):
    control = tasks.permuted("visits", seed=1)
    assert control.names == (*tasks.names, "visits (permuted)")
    same(control.select(tasks.names), tasks)
    np.testing.assert_array_equal(control.rows[3], tasks.rows[1])
    assert not np.array_equal(control.exposure[3], tasks.exposure[1])
    pairs = [sorted(zip(control.y[t], control.exposure[t], strict=True)) for t in (1, 3)]
    assert pairs[0] == pairs[1]
    same(control, tasks.permuted("visits", seed=1))
    assert not np.array_equal(control.y[3], tasks.permuted("visits", seed=2).y[3])
    assert tasks.permuted("spend", 0, new_name="noise").names[-1] == "noise"


def test_permuted_does_not_depend_on_the_order_of_tasks(tasks):
    other = tasks.select(tasks.names[::-1]).permuted("spend", seed=5)
    np.testing.assert_array_equal(other.y[3], tasks.permuted("spend", seed=5).y[3])


def test_cells(tasks):
    cells = tasks.cells()
    assert list(cells.columns) == ["row", "task", "y", "exposure"] and len(cells) == tasks.n_cells.sum()
    spend = cells[cells["task"] == "spend"]
    np.testing.assert_array_equal(spend["row"], tasks.rows[2])
    np.testing.assert_array_equal(spend["y"], tasks.y[2])


@pytest.mark.parametrize("layout", ["wide", "long"])
def test_spec_restores_everything_through_json(layout, columns):
    if layout == "wide":
        outputs = {"any_visit": "bernoulli", "visits": "poisson", "spend": StudentT(dof=7.5)}
        tasks = Tasks.from_frame(
            pd.DataFrame(columns), ["region", "urban", "age"], outputs, {"spend": 2.0}, {"visits": "years"}
        )
    else:
        tasks = Tasks.from_groups(pd.DataFrame(columns), ["age"], "spend", "region", "gaussian")
    meta, arrays = tasks.spec()
    assert all(array.dtype.kind in "if" for array in arrays.values())
    restored = Tasks.from_spec(json.loads(json.dumps(meta)), arrays)
    same(restored, tasks)
    np.testing.assert_array_equal(restored.encode(pl.DataFrame(columns)), tasks.X)


def test_repr_is_a_short_table(tasks):
    lines = repr(tasks).splitlines()
    assert lines[0] == "Tasks: 3 on 40 rows × 3 inputs (age, region[north], region[west])"
    assert lines[1].split() == ["task", "family", "cells", "missing"]
    assert lines[4].split() == ["spend", "gaussian", "38", "2"]
    many = Tasks.from_arrays(np.arange(9.0)[:, None], np.random.default_rng(0).normal(size=(9, 25)), ["gaussian"] * 25)
    assert len(repr(many).splitlines()) == 23 and "and 5 more" in repr(many)


@frames
def test_dropped_inputs_are_named(frame, columns):
    age = np.array(columns["age"])
    columns |= {"days": (365.25 * age).tolist(), "youth": (100 - age).tolist(), "again": age.tolist(), "one": [1] * 40}
    columns["land"] = ["here"] * 40
    with pytest.warns(TaskWarning) as caught:
        tasks = Tasks.from_frame(
            frame(columns), ["one", "land", "age", "days", "income", "youth", "again"], {"spend": "gaussian"}
        )
    assert tasks.inputs == ("age", "income")
    message = str(caught[0].message)
    for part in (
        "'one' is constant (1)", "'land' is constant ('here')", "'days' is a rescaled copy of 'age'",
        "'youth' is a rescaled copy of 'age'", "'again' is a copy of 'age'",
    ):
        assert part in message
    assert caught[0].filename == __file__
    needed = {name: columns[name] for name in ("age", "income")}
    np.testing.assert_array_equal(tasks.encode(frame(needed)), tasks.X)


def test_two_level_copies_of_each_other_are_found():
    frame = pd.DataFrame({"sex": ["f", "m", "m"] * 5, "male": [False, True, True] * 5, "y": np.arange(15.0)})
    with pytest.warns(TaskWarning, match=r"'male' is a copy of 'sex\[m\]'"):
        assert Tasks.from_frame(frame, ["sex", "male"], {"y": "gaussian"}).inputs == ("sex[m]",)


def test_nearly_equal_inputs_are_kept():
    x = np.random.default_rng(0).normal(size=50)
    X = np.column_stack([x, x + 1e-8 * np.arange(50)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Tasks.from_arrays(X, x[:, None] ** 2, ["gaussian"]).inputs == ("x0", "x1")


def warned(Y: np.ndarray, names: list[str]) -> str:
    X = np.random.default_rng(99).normal(size=(len(Y), 1))
    with pytest.warns(TaskWarning, match="related outcomes") as caught:
        Tasks.from_arrays(X, Y, ["gaussian"] * Y.shape[1], names=names)
    assert caught[0].filename == __file__
    return str(caught[0].message)


def test_exact_sums_are_named():
    parts = np.random.default_rng(0).normal(size=(60, 3)).round(2)
    Y = np.column_stack([parts, parts[:, :2].sum(axis=1), parts.sum(axis=1)])
    Y[:15, 1] = np.nan
    message = warned(Y, ["prescrib", "nonpresc", "other", "medecine", "all"])
    assert "'medecine' is exactly 'prescrib' + 'nonpresc'" in message
    assert "'all' is exactly 'prescrib' + 'nonpresc' + 'other'" in message
    assert "'all' is exactly 'other' + 'medecine'" in message
    assert message.count("exactly") == 3


def test_copies_are_named_with_their_slope_and_offset():
    y = np.random.default_rng(0).normal(size=30)
    message = warned(np.column_stack([y, y, 32 + 1.8 * y, -y]), ["a", "same", "warm", "minus"])
    for part in ("'same' is exactly 'a'", "'warm' is exactly 1.8 × 'a' + 32", "'minus' is exactly -'a'"):
        assert part in message


def test_sums_of_rare_counts_are_found_and_false_ones_are_not():
    rng = np.random.default_rng(4)
    parts = rng.poisson(0.003, size=(20_000, 6)).astype(float)
    message = warned(np.column_stack([parts, parts[:, 1] + parts[:, 4]]), list("abcdefg"))
    assert message == "related outcomes: 'g' is exactly 'b' + 'e'"


def test_no_warning_without_an_identity_or_with_too_few_common_rows():
    rng = np.random.default_rng(5)
    Y = rng.normal(size=(40, 4))
    Y[:, 3] = Y[:, 0] + Y[:, 1]
    Y[9:, 3] = np.nan
    almost = rng.normal(size=(40, 3))
    almost[:, 2] = almost[:, 0] + almost[:, 1]
    almost[17, 2] += 0.01
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for outcomes in (Y, almost):
            Tasks.from_arrays(rng.normal(size=(40, 1)), outcomes, ["gaussian"] * outcomes.shape[1])


def test_thirty_tasks_are_searched_fast():
    rng = np.random.default_rng(6)
    Y = rng.poisson(0.5, size=(5000, 30)).astype(float)
    Y[rng.random(Y.shape) < 0.3] = np.nan
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Tasks.from_arrays(rng.normal(size=(5000, 2)), Y, ["poisson"] * 30)
    assert time.process_time() - start < 5
