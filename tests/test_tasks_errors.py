"""Tasks that cannot be modelled: every error names the task or column and quotes the rows or values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

from bmtl.errors import TaskError
from bmtl.families import Gaussian
from bmtl.tasks import Tasks

frames = pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
N = 12


def columns(**changes) -> dict[str, object]:
    rng = np.random.default_rng(0)
    base = {
        "age": rng.normal(50, 10, N),
        "region": ["east", "west"] * (N // 2),
        "spend": rng.normal(size=N),
        "visits": rng.poisson(3.0, N),
        "died": [0, 1, 1] * (N // 3),
        "years": rng.uniform(1, 2, N),
    }
    return base | changes


def put(values, at: dict[int, object]) -> list:
    values = list(values)
    for row, value in at.items():
        values[row] = value
    return values


def raises(*quoted: str):
    """An expectation that the message contains every one of these."""
    return pytest.raises(TaskError, match="".join(f"(?=[\\s\\S]*{part})" for part in map(_escape, quoted)))


def _escape(text: str) -> str:
    return "".join(f"\\{c}" if c in r"\.[](){}*+?^$|" else c for c in text)


# Inputs ---------------------------------------------------------------------------------------------------------------


@frames
@pytest.mark.parametrize("gap", [np.nan, None])
def test_missing_input(frame, gap):
    df = frame(columns(age=put(np.arange(N, dtype=float), {3: gap, 7: gap})))
    with raises("input 'age'", "missing", "rows 3, 7"):
        Tasks.from_frame(df, ["age"], {"spend": "gaussian"})


@frames
def test_missing_level(frame):
    df = frame(columns(region=put(["a", "b"] * 6, dict.fromkeys(range(8)))))
    with raises("input 'region'", "rows 0, 1, 2, 3, 4 and 3 more"):
        Tasks.from_frame(df, ["region"], {"spend": "gaussian"})


@frames
def test_infinite_input(frame):
    df = frame(columns(age=put(np.arange(N, dtype=float), {2: np.inf, 5: -np.inf})))
    with raises("input 'age'", "row 2 (inf)", "row 5 (-inf)"):
        Tasks.from_frame(df, ["age"], {"spend": "gaussian"})


@frames
def test_input_of_a_kind_that_cannot_be_encoded(frame):
    df = frame(columns(day=list(pd.date_range("2020-01-01", periods=N).to_pydatetime())))
    with raises("input 'day'", "2020", "row 0"):
        Tasks.from_frame(df, ["day"], {"spend": "gaussian"})


@pytest.mark.parametrize(("value", "text"), [(np.nan, "row 4"), (np.inf, "row 4 (inf)")])
def test_bad_input_array(value, text):
    X = np.random.default_rng(0).normal(size=(N, 2))
    X[4, 1] = value
    with raises("'x1'", text):
        Tasks.from_arrays(X, X[:, :1], ["gaussian"])


@frames
def test_no_varying_input(frame):
    with raises("no input is left", "'one' is constant (1)"):
        Tasks.from_frame(frame(columns(one=[1] * N)), ["one"], {"spend": "gaussian"})
    with raises("no input is left", "'land' is constant ('x')"):
        Tasks.from_frame(frame(columns(land=["x"] * N)), ["land"], {"spend": "gaussian"})
    with raises("no input is left", "'one' is constant (1)", "'land' is constant ('x')"):
        Tasks.from_frame(frame(columns(one=[1] * N, land=["x"] * N)), ["one", "land"], {"spend": "gaussian"})


@frames
def test_encoded_names_that_collide(frame):
    df = frame(columns() | {"region[west]": np.arange(N)})
    with raises("duplicate", "'region[west]'"):
        Tasks.from_frame(df, ["region", "region[west]"], {"spend": "gaussian"})


# Names and roles ------------------------------------------------------------------------------------------------------


@frames
@pytest.mark.parametrize(
    ("kwargs", "quoted"),
    [
        ({"inputs": ["age", "agee"]}, ("no such column", "'agee'", "'region'")),
        ({"outputs": {"spent": "gaussian"}}, ("no such column", "'spent'")),
        ({"outputs": {"visits": "poisson"}, "exposure": {"visits": "time"}}, ("no such column", "'time'")),
        ({"outputs": {}}, ("no outputs",)),
        ({"outputs": ["spend"]}, ("outputs", "list")),
        ({"inputs": "age"}, ("inputs", "'age'")),
        ({"inputs": ["age", 3]}, ("strings", "3")),
        ({"inputs": ["age", "age"]}, ("duplicate input names", "'age'")),
        ({"inputs": ["age", "spend"]}, ("'spend'", "both outcome and input")),
        ({"outputs": {"visits": "poisson", "years": "gaussian"}, "exposure": {"visits": "years"}},
         ("'years'", "both exposure column and outcome")),
        ({"outputs": {"spend": "gausian"}}, ("'spend'", "'gausian'", "gaussian, laplace, lognormal, negative")),
        ({"outputs": {"spend": 3}}, ("'spend'", "3")),
        ({"importance": {"spent": 2.0}}, ("importance", "'spent'", "'spend'")),
        ({"exposure": {"spent": "years"}}, ("exposure", "'spent'", "'spend'")),
        ({"exposure": {"spend": "years"}}, ("'spend'", "gaussian", "no exposure")),
        ({"importance": {"spend": 0}}, ("importance", "'spend'", "> 0", "got 0")),
        ({"importance": {"spend": -1.5}}, ("'spend'", "got -1.5")),
        ({"importance": {"spend": np.inf}}, ("'spend'", "got inf")),
        ({"importance": {"spend": np.nan}}, ("'spend'", "got nan")),
        ({"importance": {"spend": "high"}}, ("'spend'", "got 'high'")),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_frame_arguments(frame, kwargs, quoted):
    arguments = {"inputs": ["age"], "outputs": {"spend": "gaussian"}} | kwargs
    with raises(*quoted):
        Tasks.from_frame(frame(columns()), **arguments)


@pytest.mark.parametrize("df", [{"age": [1.0]}, [[1.0]], pd.Series([1.0]), pl.Series([1.0]), None, "frame"])
def test_unsupported_frame(df):
    with raises("data frame", type(df).__name__):
        Tasks.from_frame(df, ["age"], {"spend": "gaussian"})


def test_array_given_as_frame():
    with raises("ndarray", "Tasks.from_arrays"):
        Tasks.from_frame(np.ones((3, 2)), ["age"], {"spend": "gaussian"})


@frames
def test_empty_frame(frame):
    with raises("no rows", "'age'"):
        Tasks.from_frame(frame({"age": [], "spend": []}), ["age"], {"spend": "gaussian"})
    with raises("no rows", "'age'"):
        Tasks.from_groups(frame({"age": [], "y": [], "g": []}), ["age"], "y", "g", "gaussian")


def test_repeated_column_in_the_frame():
    df = pd.DataFrame(np.random.default_rng(0).normal(size=(N, 3)), columns=["a", "a", "y"])
    with raises("'a'"):
        Tasks.from_frame(df, ["a"], {"y": "gaussian"})


# Outcomes -------------------------------------------------------------------------------------------------------------


@frames
@pytest.mark.parametrize(
    ("family", "column", "value", "text"),
    [
        ("bernoulli", "died", 2, "row 5 (2)"),
        ("bernoulli", "died", 0.5, "row 5 (0.5)"),
        ("poisson", "visits", -1, "row 5 (-1)"),
        ("poisson", "visits", 0.5, "row 5 (0.5)"),
        ("negative_binomial", "visits", -1, "row 5 (-1)"),
        ("negative_binomial", "visits", np.inf, "row 5 (inf)"),
        ("gaussian", "spend", np.inf, "row 5 (inf)"),
        ("student_t", "spend", -np.inf, "row 5 (-inf)"),
    ],
)
def test_outcome_outside_the_support(frame, family, column, value, text):
    base = columns()
    base[column] = put(map(float, base[column]), {0: None, 5: value})
    with raises(f"'{column}'", family, text):
        Tasks.from_frame(frame(base), ["age"], {column: family})
    with raises(f"'{column}'", family, text):
        Tasks.from_groups(frame(base), ["age"], column, "region", family)


@frames
def test_at_most_five_rows_are_quoted(frame):
    with raises("row 0 (-1), row 1 (-2), row 2 (-3), row 3 (-4), row 4 (-5) and 7 more"):
        Tasks.from_frame(frame(columns(visits=-1 - np.arange(N))), ["age"], {"visits": "poisson"})


@frames
@pytest.mark.parametrize("family", ["gaussian", "student_t", "bernoulli", "poisson", "negative_binomial"])
def test_constant_outcome(frame, family):
    df = frame(columns(same=put([1] * N, {2: None})))
    with raises("'same'", "constant", "all 11 observed values are 1"):
        Tasks.from_frame(df, ["age"], {"same": family})
    with raises("'same'", "constant"):
        Tasks.from_groups(df, ["age"], "same", "region", family)


def test_outcome_constant_up_to_rounding():
    y = np.full(N, 0.3)
    y[::2] = 0.1 + 0.2
    with raises("'y0'", "constant"):
        Tasks.from_arrays(np.arange(float(N))[:, None], y[:, None], ["gaussian"])


@frames
@pytest.mark.parametrize("observed", [0, 2])
def test_too_few_observed_outcomes(frame, observed):
    df = frame(columns(rare=put([None] * N, {4: 1.0, 9: 2.0} if observed else {})))
    with raises("'rare'", f"{observed} observed", "at least 3", "4, 9" if observed else "rows"):
        Tasks.from_frame(df, ["age"], {"spend": "gaussian", "rare": "gaussian"})


@frames
def test_outcome_that_is_not_numbers(frame):
    with raises("outcome 'region'", "not numbers", "row 0 ('east')", "and 7 more"):
        Tasks.from_frame(frame(columns()), ["age"], {"region": "gaussian"})


def test_only_the_cells_that_are_not_numbers_are_quoted():
    df = pd.DataFrame(columns(spend=put([1, 2, 3] * 4, {1: None, 6: "n/a"})))
    with raises("outcome 'spend' has cells that are not numbers: row 6 ('n/a')"):
        Tasks.from_frame(df, ["age"], {"spend": "gaussian"})


@frames
@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, np.nan])
def test_bad_exposure(frame, value):
    base = columns()
    base["years"] = put(base["years"], {3: value})
    for make in (
        lambda: Tasks.from_frame(frame(base), ["age"], {"visits": "poisson"}, exposure={"visits": "years"}),
        lambda: Tasks.from_groups(frame(base), ["age"], "visits", "region", "poisson", exposure="years"),
    ):
        with raises("exposure", "'visits'", f"row 3 ({value:g})"):
            make()


@frames
def test_exposure_is_not_needed_where_the_outcome_is_missing(frame):
    base = columns()
    base["years"] = put(base["years"], {3: None})
    base["visits"] = put(base["visits"], {3: None})
    tasks = Tasks.from_frame(frame(base), ["age"], {"visits": "poisson"}, exposure={"visits": "years"})
    assert tasks.n_cells[0] == N - 1 and np.all(np.isfinite(tasks.exposure[0]))


# Arrays ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "quoted"),
    [
        ({"X": np.arange(12.0)}, ("X", "2-D", "(12,)")),
        ({"Y": np.arange(12.0)}, ("Y", "2-D", "(12,)")),
        ({"X": [[1.0, 2.0], [3.0]]}, ("X", "2-D")),
        ({"X": np.ones((11, 2))}, ("11 rows", "12")),
        ({"X": np.ones((0, 2)), "Y": np.ones((0, 2))}, ("no rows",)),
        ({"X": None, "inputs": ["x"]}, ("inputs has 1", "'x'", "0 columns")),
        ({"Y": np.ones((12, 0)), "families": []}, ("no outputs",)),
        ({"families": ["gaussian"]}, ("families has 1", "2 tasks", "'y0', 'y1'")),
        ({"families": "gaussian"}, ("families", "'gaussian'")),
        ({"families": Gaussian()}, ("families", "Gaussian()")),
        ({"families": ["gaussian", "normal"]}, ("'y1'", "'normal'")),
        ({"names": ["a"]}, ("names has 1", "'a'", "2 columns")),
        ({"names": ["a", "a"]}, ("duplicate output names", "'a'")),
        ({"inputs": ["a"]}, ("inputs has 1", "'a'", "2 columns")),
        ({"inputs": ["a", "a"]}, ("duplicate input names", "'a'")),
        ({"names": ["a", "b"], "inputs": ["b", "c"]}, ("'b'", "both outcome and input")),
        ({"importance": [1.0]}, ("importance has 1", "2 tasks")),
        ({"importance": [1.0, -2.0]}, ("'y1'", "got -2")),
        ({"importance": {"y7": 1.0}}, ("'y7'", "'y0', 'y1'")),
        ({"exposure": np.ones(12)}, ("exposure", "2-D", "(12,)")),
        ({"exposure": np.ones((12, 1))}, ("exposure", "(12, 1)", "(12, 2)")),
        ({"exposure": np.full((12, 2), 3.0)}, ("'y0'", "gaussian", "no exposure")),
        ({"X": [["1", "2"]] * 12}, ("X", "not numbers", "row 0, column 0")),
        ({"Y": np.array([[1.0, "bad"]] + [[1.0, 2.0]] * 11, dtype=object)}, ("Y", "row 0, column 1 ('bad')")),
        ({"Y": np.ones((12, 2)) * 1j}, ("Y", "not numbers")),
    ],
)
def test_array_arguments(kwargs, quoted):
    rng = np.random.default_rng(0)
    arguments = {"X": rng.normal(size=(12, 2)), "Y": rng.normal(size=(12, 2)), "families": ["gaussian"] * 2} | kwargs
    with raises(*quoted):
        Tasks.from_arrays(**arguments)


# Groups ---------------------------------------------------------------------------------------------------------------


@frames
@pytest.mark.parametrize(
    ("kwargs", "quoted"),
    [
        ({"group": "spend"}, ("'spend'", "both outcome and group")),
        ({"inputs": ["age", "region"]}, ("'region'", "both group and input")),
        ({"inputs": ["age", "spend"]}, ("'spend'", "both outcome and input")),
        ({"output": "visits", "family": "poisson", "exposure": "visits"}, ("'visits'", "exposure column and outcome")),
        ({"output": "visits", "family": "poisson", "exposure": "region"}, ("'region'", "exposure column and group")),
        ({"group": "county"}, ("no such column", "'county'")),
        ({"family": "normal"}, ("'spend'", "'normal'")),
        ({"exposure": "years"}, ("'spend'", "gaussian", "no exposure")),
        ({"inputs": []}, ("no inputs",)),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_group_arguments(frame, kwargs, quoted):
    arguments = {"inputs": ["age"], "output": "spend", "group": "region", "family": "gaussian"} | kwargs
    with raises(*quoted):
        Tasks.from_groups(frame(columns()), **arguments)


@frames
def test_groups_without_an_outcome_are_named(frame):
    df = frame(columns(g=["a", "b", "b", "c"] + ["d"] * 8, spend=put(np.arange(float(N)), {3: None})))
    with raises("without an observed outcome of 'spend': 'c'"):
        Tasks.from_groups(df, ["age"], "spend", "g", "gaussian")


@frames
def test_missing_group(frame):
    df = frame(columns(g=put(["a", "b"] * 6, {2: None, 8: None})))
    with raises("group 'g'", "missing", "rows 2, 8"):
        Tasks.from_groups(df, ["age"], "spend", "g", "gaussian")


def test_groups_whose_labels_read_the_same():
    df = pd.DataFrame(columns(g=pd.Series([1, "1"] * 6, dtype=object)))
    with raises("duplicate group names", "'1'"):
        Tasks.from_groups(df, ["age"], "spend", "g", "gaussian")


# Methods --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tasks() -> Tasks:
    df = pd.DataFrame(columns(urban=[True, False, False] * 4))
    return Tasks.from_frame(df, ["age", "region", "urban"], {"spend": "gaussian", "visits": "poisson"})


def test_unknown_and_repeated_tasks(tasks):
    for call in (tasks.index, lambda name: tasks.select([name]), lambda name: tasks.permuted(name, 0)):
        with raises("'spent'", "'spend', 'visits'"):
            call("spent")
    with raises("duplicate", "'spend'"):
        tasks.select(["spend", "spend"])
    with raises("'spend'"):
        tasks.select("spend")
    with raises("no tasks"):
        tasks.select([])
    with raises("duplicate", "'visits'"):
        tasks.permuted("spend", 0, new_name="visits")


def test_require(tasks):
    tasks.require(2)
    with raises("advise compares tasks and needs at least 2; got 1: 'spend'"):
        tasks.select(["spend"]).require(2, "advise")


def test_masks_that_do_not_match(tasks):
    with raises("2 tasks", "got 1"):
        tasks.keep_cells([np.ones(N, dtype=bool)])
    with raises("'visits'", "12 booleans", "(11,)"):
        tasks.keep_cells([np.ones(N, dtype=bool), np.ones(N - 1, dtype=bool)])
    with raises("'visits'", "int64"):
        tasks.keep_cells([np.ones(N, dtype=bool), np.arange(N)])


@frames
def test_new_inputs_that_do_not_fit(frame, tasks):
    new = {"age": [1.0, 2.0, 3.0], "region": ["east", "north", "south"], "urban": [True, False, True]}
    with raises("input 'region'", "unknown levels", "row 1 ('north')", "row 2 ('south')", "'east', 'west'"):
        tasks.encode(frame(new))
    good = new | {"region": ["east"] * 3}
    with raises("no such column", "'urban'"):
        tasks.encode(frame({name: good[name] for name in ("age", "region")}))
    with raises("input 'age'", "row 1"):
        tasks.encode(frame(good | {"age": [1.0, None, 3.0]}))
    with raises("input 'age'", "row 2 (inf)"):
        tasks.standardise(frame(good | {"age": [1.0, 2.0, np.inf]}))
    with raises("input 'age'", "not numbers", "row 0 ('a')"):
        tasks.encode(frame(good | {"age": ["a", "b", "c"]}))
    with raises("input 'region'", "missing", "row 1"):
        tasks.encode(frame(good | {"region": ["east", None, "west"]}))
    with raises("input 'urban'", "true or false", "row 2 (2)"):
        tasks.encode(frame(good | {"urban": [0, 1, 2]}))


def test_new_arrays_that_do_not_fit(tasks):
    with raises("expected 3", "'region[west]'", "got 2"):
        tasks.encode(np.ones((4, 2)))
    with raises("2-D", "(3,)"):
        tasks.encode(np.ones(3))
    with raises("'region[west]'", "row 1"):
        tasks.encode([[1.0, 1.0, 1.0], [1.0, np.nan, 1.0]])
    with raises("'urban'", "row 0 (inf)"):
        tasks.encode([[1.0, 1.0, np.inf]])


def test_restoring_an_unknown_family(tasks):
    meta, arrays = tasks.spec()
    meta["families"][0]["name"] = "normal"
    with raises("'normal'", "'gaussian'"):
        Tasks.from_spec(meta, arrays)
