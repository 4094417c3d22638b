"""The case study of health care use: its tasks, and its advice on the negative control."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "case_studies" / "health_care_use.py"
FAMILIES = ["bernoulli", "gaussian", *["negative_binomial"] * 5]


@pytest.fixture(scope="module")
def study(read_study: Callable[[str], ModuleType]) -> ModuleType:
    return read_study("health_care_use")


@pytest.fixture(scope="module")
def tasks(study: ModuleType) -> Any:
    return study.read(study.table(people=600))


def test_seven_tasks_of_their_families(study: ModuleType, tasks: Any) -> None:
    assert tasks.names == (*study.OUTPUTS, study.CONTROL)
    assert [family.name for family in tasks.families] == FAMILIES
    assert tasks.n_rows == 600


def test_log_expense_is_missing_exactly_where_there_was_none(tasks: Any) -> None:
    anything, amount = tasks.index("any expense"), tasks.index("log expense")
    assert tasks.rows[anything].size == tasks.n_rows
    np.testing.assert_array_equal(tasks.rows[amount], tasks.rows[anything][tasks.y[anything] == 1])
    assert 0 < tasks.rows[amount].size < tasks.n_rows


def test_control_is_a_permutation(study: ModuleType, tasks: Any) -> None:
    original, control = tasks.index("doctor visits"), tasks.index(study.CONTROL)
    np.testing.assert_array_equal(tasks.rows[original], tasks.rows[control])
    assert not np.array_equal(tasks.y[original], tasks.y[control])

    def cells(t: int) -> list[tuple[float, float]]:
        return sorted(zip(tasks.y[t].tolist(), tasks.exposure[t].tolist(), strict=True))

    assert cells(original) == cells(control)


def test_folds_leave_out_whole_people_and_later_years(study: ModuleType) -> None:
    raw = study.table(all_years=True, people=200)
    tasks = study.read(raw)
    assert raw["zper"].nunique() == 200 and len(raw) == tasks.n_rows > 400
    for learn, out in study.folds(raw, "person").split(tasks, 0):
        assert not set(raw["zper"][learn]) & set(raw["zper"][out]) and (learn | out).all()
    for learn, out in study.folds(raw, "year").split(tasks, 0):
        assert raw["year"][learn].max() < raw["year"][out].min()


@pytest.mark.slow
def test_quick_run_decouples_the_control(study: ModuleType, tmp_path: Path) -> None:
    report = tmp_path / "reports" / "health_care_use.html"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--report", str(report)],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stderr
    pairs = re.findall(r"^(.+) · (.+): (merge|weight|decouple|undecided)\. ", done.stdout, re.MULTILINE)
    assert len(pairs) == 6
    control = {verdict for a, b, verdict in pairs if study.CONTROL in (a, b)}
    assert control == {"decouple"}
    assert "Negative control: 3 of 3 pairs are decouple." in done.stdout
    assert report.read_text("utf-8").lstrip().lower().startswith("<!doctype html")
