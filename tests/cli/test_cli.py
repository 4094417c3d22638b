"""The command line: what it reads, writes and says, and with which exit code."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bmtl
from bmtl.cli import main
from bmtl.cli.parser import EXAMPLES, FAMILIES, METHODS, parser
from bmtl.families import FAMILIES as KNOWN
from bmtl.fitting.settings import METHODS as KNOWN_METHODS

QUICK = ["--trunk", "identity", "--set", "restarts=1", "--set", "max_steps=4000", "--set", "draws=200"]
OUTPUTS = ["--output", "visits:poisson", "--output", "cost:gaussian", "--output", "ill:bernoulli"]
P = ("p_merge", "p_weight", "p_decouple")
SHARED = [*OUTPUTS, "--input", "age,income", "--exposure", "visits=days"]


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 150
    frame = pd.DataFrame({
        "age": rng.normal(40, 10, n).round(1), "income": rng.normal(size=n).round(3),
        "region": rng.choice([1, 2, 7], n), "days": rng.integers(1, 9, n), "year": 2001 + np.arange(n) // 50,
    })
    eta = (frame["age"] - 40) / 10 + 0.5 * frame["income"]
    frame["visits"] = rng.poisson(frame["days"] * np.exp(0.3 * eta))
    frame["cost"] = (100 + 20 * eta + 8 * rng.normal(size=n)).round(2)
    frame["ill"] = (eta + rng.logistic(size=n) > 0).astype(int)
    frame["grade"] = np.array(["poor", "fair", "good"])[np.searchsorted([-1.0, 1.0], eta + rng.logistic(size=n))]
    frame.loc[5, "cost"] = np.nan
    return frame


@pytest.fixture
def table(frame: pd.DataFrame, tmp_path: Path) -> str:
    path = tmp_path / "people.csv"
    frame.to_csv(path, index=False)
    return str(path)


@pytest.fixture(scope="module")
def fitted(frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """What ``bmtl fit`` wrote and printed."""
    folder = tmp_path_factory.mktemp("fitted")
    frame.to_csv(folder / "people.csv", index=False)
    files = ["--save", folder / "fit.nc", "--report", folder / "fit.html"]
    words = ["fit", folder / "people.csv", *SHARED, *QUICK, *files]
    done = subprocess.run(
        [sys.executable, "-m", "bmtl", *map(str, words), "--json"], capture_output=True, text=True, check=False
    )
    return SimpleNamespace(folder=folder, done=done)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_help_computes_nothing_and_shows_an_example() -> None:
    code = (
        "import sys\nfrom bmtl.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: print(end.code, [m for m in ('torch', 'jax', 'numpy') if m in sys.modules])\n"
    )
    for words in ([], *([name] for name in EXAMPLES)):
        asked = [sys.executable, "-c", code, *words, "--help"]
        done = subprocess.run(asked, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "0 []"
        assert not words or EXAMPLES[words[0]] in done.stdout


def test_help_names_what_there_is() -> None:
    assert set(FAMILIES) == set(KNOWN)
    assert set(METHODS) == set(KNOWN_METHODS)


def test_examples_are_understood() -> None:
    for name, text in EXAMPLES.items():
        words = text.removeprefix("example:").replace("\\\n", " ").split()
        assert words[0] == "bmtl" and parser().parse_args(words[1:]).command == name


def test_installed_as_bmtl() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["scripts"] == {"bmtl": "bmtl.cli:main"}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "required: COMMAND"),
        (["advise"], "required: DATA, --output, --input"),
        (["fit", "a.csv", "--input", "x", "--output", "y"], "expected NAME:FAMILY, such as visits:poisson, got 'y'"),
        (["fit", "a.csv", "--input", "x,", "--output", "y:gaussian"], "names of columns"),
        (["advise", "a.csv", "--input", "x", "--output", "y:gaussian", "--folds", "day:year"], "time:COLUMN"),
        (["predict", "f.nc", "a.csv", "--prob", "1.5"], "a probability between 0 and 1"),
    ],
)
def test_usage_errors_of_the_parser(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--output", "cost:gausian"], "--output cost: unknown family 'gausian'; known: gaussian, "),
        (["--output", "cost:gaussian", "--output", "cost:gamma"], "--output names 'cost' twice"),
        (["--output", "cost:gaussian", "--set", "chains=2"], "--set: method 'svi' has no option chains; it has guide"),
        (["--output", "cost:gaussian", "--set", "restarts=0"], "--set: restarts must be ≥ 1, got 0"),
        (["--output", "cost:gaussian", "--model", "Other"], "--model: the model 'Other' is not installed; installed: "),
        (["--output", "cost:gaussian", "--exposure", "visits=days"], "and 'visits' is none"),
        (["--output", "cost:gaussian", "--levels", "cost=a,b,c"], "'cost' is gaussian"),
        (["--output", "grade:ordinal", "--levels", "grade=poor,good"], "needs at least 3 levels, got 'poor', 'good'"),
        (["--output", "cost:gaussian", "--categorical", "region"], "--categorical is of inputs, and 'region' is none"),
        (["--output", "cost:gaussian", "--output", "ill:bernoulli", "--group", "region"], "but 2 are given"),
    ],
)
def test_usage_errors(words: list[str], complaint: str, table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", table, "--input", "age", *words]) == 2
    line = said(capsys)
    assert line.startswith("bmtl: error: ") and complaint in line


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--input", "age", "--output", "cost:poisson"], "outcome 'cost' has values that poisson does not allow"),
        (["--input", "age,size", "--output", "cost:gaussian"], "no such column: 'size'"),
        (["--input", "cost", "--output", "visits:poisson"], "input 'cost' has missing values (NaN or null) at row 5"),
        (["--input", "age", "--output", "grade:ordinal"], "has no order"),
    ],
)
def test_data_errors_name_file_column_and_row(
    words: list[str], complaint: str, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", table, *words]) == 1
    line = said(capsys)
    assert line.startswith(f"bmtl: error: {table}: ") and complaint in line
    assert ("row " in complaint) <= line.endswith("(row 0 is the first below the header)")


def test_a_cell_that_is_no_number_does_not_make_levels_of_the_others(
    frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = frame.astype({"age": object})
    text.loc[[7, 9], "age"] = ["unknown", "?"]
    monkeypatch.setattr(sys, "stdin", io.StringIO(text.to_csv(index=False)))
    assert main(["fit", "-", "--input", "age", "--output", "cost:gaussian"]) == 1
    assert "standard input: column 'age' has cells that are not numbers: row 7 ('unknown'), row 9 ('?')" in said(capsys)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no such file: "), ("", "cannot be read: No columns"), ('a,b\n"1,2\n', "cannot be read: "),
        ("a,b,Größe\n1,2,3\n", "is not text in UTF-8"), ("a,b\n", "has no rows"),
    ],
)
def test_unreadable_tables(
    content: str | None, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.csv"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    assert main(["fit", str(path), "--input", "a", "--output", "b:gaussian"]) == 1
    line = said(capsys)
    assert complaint in line and str(path) in line and "row 0" not in line


def test_a_folder_is_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(tmp_path), "--input", "a", "--output", "b:gaussian"]) == 1
    assert said(capsys) == f"bmtl: error: {tmp_path} is a folder, not a table"


def test_places_are_looked_at_before_anything_is_fitted(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", table, "--input", "age", "--output", "cost:gaussian"]
    assert main([*words, "--save", "/nowhere/at/all/fit.nc"]) == 1
    assert said(capsys) == "bmtl: error: no such folder: /nowhere/at/all"
    assert main([*words, "--report", str(tmp_path)]) == 1
    assert said(capsys) == f"bmtl: error: {tmp_path} is a folder, not a file to be written"


def test_not_a_fit(table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", table, "--out", str(tmp_path / "a.html")]) == 1
    assert f"{table} is not a fit saved by bmtl" in said(capsys)
    assert not (tmp_path / "a.html").exists()


def test_debug_shows_where(table: str) -> None:
    with pytest.raises(bmtl.TaskError, match="no such column"):
        main(["fit", table, "--input", "size", "--output", "cost:gaussian", "--debug"])


def test_unexpected_errors_are_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Any) -> None:
        raise KeyError("lost\nand broken")

    from bmtl.cli import commands

    monkeypatch.setitem(commands.COMMANDS, "report", fail)
    assert main(["report", "fit.nc", "--out", "a.html"]) == 1
    assert "error: KeyError (--debug shows where): " in said(capsys)


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    from bmtl.cli import commands

    monkeypatch.setitem(commands.COMMANDS, "report", stop)
    assert main(["report", "fit.nc", "--out", "a.html"]) == 130
    assert said(capsys) == "bmtl: interrupted"


def test_fit_prints_json_and_writes_files(fitted: SimpleNamespace) -> None:
    assert fitted.done.returncode == 0, fitted.done.stderr
    found = json.loads(fitted.done.stdout)
    assert [row["task"] for row in found["elpd"]] == ["visits", "cost", "ill"]
    assert found["weights"][0]["noise"] is None and 5 < found["weights"][1]["noise"] < 12
    assert [line for line in fitted.done.stderr.splitlines() if "warning" not in line] == [
        f"wrote {fitted.folder / 'fit.nc'}", f"wrote {fitted.folder / 'fit.html'}"
    ]
    assert bmtl.load(fitted.folder / "fit.nc").arrangement.names == ("cost", "ill", "visits")


def test_report_is_that_of_the_fit(fitted: SimpleNamespace, tmp_path: Path) -> None:
    assert main(["report", str(fitted.folder / "fit.nc"), "--out", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_text("utf-8") == (fitted.folder / "fit.html").read_text("utf-8")


def test_predictions_are_those_of_the_fit(
    fitted: SimpleNamespace, frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bmtl.cli import commands

    out = tmp_path / "predicted.csv"
    words = ["predict", str(fitted.folder / "fit.nc"), str(fitted.folder / "people.csv")]
    assert main([*words, "--exposure", "visits=days", "--out", str(out), "--prob", "0.5"]) == 0
    found = pd.read_csv(out)
    tree = bmtl.load(fitted.folder / "fit.nc").predict(frame, exposure={"visits": frame["days"].to_numpy()})
    assert list(found) == [f"{name}{end}" for name in ("visits", "cost", "ill") for end in ("", "_low", "_high")]
    for name, spread in (("visits", "predictions"), ("cost", "predictions"), ("ill", "mean")):
        expected = tree["mean"][name].to_numpy()[0]
        low, high = np.quantile(tree[spread][name].to_numpy()[0], [0.25, 0.75], axis=0)
        for end, value in (("", expected.mean(axis=0)), ("_low", low), ("_high", high)):
            np.testing.assert_allclose(found[name + end], value, rtol=1e-5)
    # Expected values are the same however many rows are predicted at a time.
    monkeypatch.setattr(commands, "ROWS_AT_ONCE", 75)
    assert main([*words, "--exposure", "visits=days", "--out", str(out)]) == 0
    np.testing.assert_allclose(pd.read_csv(out)["cost"], found["cost"], rtol=1e-5)


def test_new_inputs_are_checked_by_their_rows_in_the_file(
    fitted: SimpleNamespace, frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new.csv"
    frame.assign(age=frame["age"].where(frame.index != 140)).to_csv(path, index=False)
    assert main(["predict", str(fitted.folder / "fit.nc"), str(path)]) == 1
    assert f"{path}: input 'age' has missing values (NaN or null) at row 140" in said(capsys)


def test_importance_folds_and_options_reach_advise(
    table: str, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def stand_in(model: Any, tasks: bmtl.Tasks, **options: Any) -> Any:
        asked.update(options, model=model, tasks=tasks)
        raise bmtl.TaskError("enough")

    monkeypatch.setattr(bmtl, "advise", stand_in)
    words = [
        *SHARED, "--output", "grade:ordinal", "--levels", "grade=poor,fair,good", "--input", "region", "--categorical",
        "region", "--importance", "cost=2.5", "--folds", "time:year:2", "--protect", "ill", "--seed", "7", *QUICK,
    ]
    assert main(["advise", table, *words]) == 1
    tasks = asked["tasks"]
    assert tasks.names == ("visits", "cost", "ill", "grade") and tasks.inputs[2:] == ("region[2]", "region[7]")
    assert tasks.families[3].labels == ("poor", "fair", "good")
    assert tasks.importance.tolist() == [1.0, 2.5, 1.0, 1.0] and asked["seed"] == 7 and asked["protect"] == ["ill"]
    np.testing.assert_array_equal(tasks.exposure[0], frame["days"])
    assert asked["method"].restarts == 1 and asked["model"].trunk == bmtl.trunks.Identity()
    parts = asked["folds"].split(tasks, 0)
    assert asked["folds"].kind == "time" and [np.flatnonzero(out)[0] for _, out in parts] == [50, 100]


def test_groups_of_one_outcome(table: str, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[bmtl.Tasks] = []

    def stand_in(_: Any, tasks: bmtl.Tasks, **__: Any) -> Any:
        found.append(tasks)
        raise bmtl.TaskError("enough")

    monkeypatch.setattr(bmtl, "fit", stand_in)
    assert main(["fit", table, "--input", "age", "--output", "cost:gaussian", "--group", "region"]) == 1
    assert found[0].names == ("1", "2", "7") and found[0].n_cells.sum() == frame["cost"].notna().sum()


@pytest.mark.slow
def test_advise(table: str, frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--output", "cost:gaussian", "--output", "visits:poisson", "--input", "age,income", "--folds", "2"]
    files = ["--report", str(tmp_path / "advice.html"), "--save", str(tmp_path / "fit.nc")]
    assert main(["advise", table, *words, *files, *QUICK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    tasks = bmtl.Tasks.from_frame(frame, ["age", "income"], {"cost": "gaussian", "visits": "poisson"})
    model = bmtl.models.SharedTrunk(bmtl.trunks.Identity())
    advice = bmtl.advise(model, tasks, folds=2, restarts=1, max_steps=4000, draws=200)
    (pair,), (row,) = found["pairs"], advice.pairs.to_dict("records")
    assert (pair["task_a"], pair["task_b"], pair["verdict"]) == ("cost", "visits", row["verdict"])
    assert [pair[name] for name in P] == pytest.approx([row[name] for name in P], abs=1e-6)
    assert found["arrangement"] == str(advice.arrangement)
    assert (tmp_path / "advice.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    saved = bmtl.load(tmp_path / "fit.nc")
    assert str(saved.arrangement) == found["arrangement"]
