"""The calibration benchmark: nothing without an example; every part is calibrated (slow)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import calibration
from benchmarks.calibration import BASE, Case, cases, example, parts
from bmtl.diagnostics import simulation_based_calibration
from bmtl.families import FAMILIES


def test_every_part_has_its_turn() -> None:
    found = cases()
    for number, names in enumerate(parts()):
        assert {case[number] for case in found} == set(names)
    assert found[0] == BASE and len(set(found)) == len(found)
    families, usable = parts()[1], parts()[3]
    # Categorical tasks cannot be part of a graph.
    assert len(cases(every=True)) == len(families) * len(usable) * (len(parts()[2]) + 3) - len(usable)


@pytest.mark.parametrize(("table", "name"), [("OUTCOMES", "gaussian"), ("RELATIONS", "Sparse"), ("TRUNKS", "Module")])
def test_a_part_without_an_example_is_an_error(table: str, name: str, monkeypatch) -> None:
    monkeypatch.delitem(getattr(calibration, table), name)
    with pytest.raises(LookupError, match=f"no example of.*: {name}"):
        cases()


@pytest.mark.parametrize("family", FAMILIES)
def test_examples(family: str) -> None:
    tasks = example(family)
    assert [own.name for own in tasks.families] == [family] * calibration.TASKS
    assert tasks.n_rows == calibration.ROWS and min(tasks.n_cells) >= 10 and sum(tasks.n_cells) < 48


def test_command(tmp_path: Path, monkeypatch, capsys) -> None:
    """One case; the file keeps what it holds and says where the numbers are from."""
    out = tmp_path / "results" / "calibration.json"
    out.parent.mkdir()
    out.write_text(json.dumps({"cases": {"other": {"nuts": {}}}}))
    only = ["--methods", "svi", "--guides", "mean_field", "--only", str(BASE)]
    monkeypatch.setattr(sys, "argv", ["calibration", "--simulations", "4", *only, "--out", str(out)])
    calibration.main()
    held = json.loads(out.read_text("utf-8"))
    assert set(held["cases"]) == {"other", str(BASE)} and held["hardware"] and held["versions"]["numpyro"]
    guides = held["cases"][str(BASE)]
    assert list(guides) == ["svi mean_field on numpyro"]
    assert all(own["simulations"] == 4 and 0 <= own["coverage_89"] <= 1 for own in guides.values())
    assert str(BASE) in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(), ids=str)
def test_calibrated(case: Case) -> None:
    """NUTS on 400 data sets of each case: no quantity's ranks depart from uniform at 1%, family-wise."""
    found = simulation_based_calibration(case.build(), case.tasks(), simulations=400, seed=0, **case.chains())
    assert found.calibrated, f"{case}\n{found}"
    assert found.dropped <= 8 and np.median(found.ess) > 50
