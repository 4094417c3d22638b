"""Drift: on results made by hand, on tasks of which one drifts by construction, and against `bmtl.train`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import bmtl
from bmtl.diagnostics import Drift, drift
from bmtl.diagnostics.drift import _at_random
from bmtl.trunks import MLP

TIME = np.repeat(np.arange(4), 60)


@pytest.fixture(scope="module")
def turned() -> Any:
    """Two tasks of one function each; that of the second is upside down from half of the time on."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(len(TIME), 2))
    f = X @ np.array([[1.0, 0.5], [-0.5, 1.0]]) * np.column_stack([np.ones(len(TIME)), np.where(TIME < 2, 1, -1)])
    Y = f + 0.3 * rng.normal(size=f.shape)
    Y[::7, 0] = np.nan
    return bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 2, names=["steady", "turning"])


def by_hand() -> Drift:
    """One task of four cells; runs of the random way lie .2 apart, and cells of the forward one 1 and 3 lower."""
    random = np.zeros((2, 4)) + np.array([[0.1], [-0.1]])
    forward = np.zeros((2, 4)) - np.array([1.0, 1.0, 3.0, 3.0])
    shared, single = {"forward": [forward], "random": [random]}, {"forward": [random], "random": [random]}
    return Drift(("u",), {"shared": shared, "single": single}, [np.array([1, 1, 2, 2])])


def test_ageing_and_its_error_by_hand() -> None:
    summary = by_hand().summary().iloc[0]
    # Cells of standard deviation 1; runs of variance .02, once for the past that there is and half for their mean.
    error = np.sqrt(1.0 / 4 + 0.02 + 0.01)
    assert summary["ageing_shared"] == pytest.approx(-2.0) and summary["se_shared"] == pytest.approx(error)
    assert summary["ageing_single"] == 0.0 and summary["se_single"] == pytest.approx(np.sqrt(0.03))
    # What the arms have in common, the runs' luck, is no error of their difference.
    assert summary["difference"] == pytest.approx(-2.0) and summary["se"] == pytest.approx(0.5)
    assert summary[["ages", "worse"]].tolist() == ["shared", "shared"]
    table = by_hand().table()
    assert table["ageing"].tolist() == pytest.approx([-1.0, -3.0, 0.0, 0.0])
    assert table["n"].tolist() == [2, 2, 2, 2]
    (finding,) = by_hand().findings()
    assert finding.tasks == ("u",) and "−2.00 ± 0.53" in finding.says and "age faster" in finding.says


def test_parts_at_random_are_of_the_same_rows_and_sizes(turned) -> None:
    forward = bmtl.Folds.by_time(TIME, 3).split(turned, 0)
    parts = _at_random(forward, 4)
    for (train, out), (before, later) in zip(parts, forward, strict=True):
        assert not (train & out).any()
        assert (train.sum(), out.sum()) == (before.sum(), later.sum())
    np.testing.assert_array_equal(np.sum([out for _, out in parts], axis=0), TIME > 0)
    again, other = _at_random(forward, 4), _at_random(forward, 5)
    np.testing.assert_array_equal(again, parts)
    assert (np.array(other) != np.array(parts)).any()


def test_drift_names_the_task_that_drifts(turned) -> None:
    adam = partial(torch.optim.Adam, lr=0.03)
    found = drift(MLP((6,)), turned, TIME, folds=3, runs=3, epochs=120, optimiser=adam, device="cpu")
    summary = found.summary().set_index("task")
    assert summary["ages"].to_dict() == {"turning": "both", "steady": "neither"}
    assert list(summary.index) == ["turning", "steady"]
    # Where it turns, in the second of the blocks predicted, and not before: rows of any time then mislead instead.
    ageing = found.table().query("arm == 'single' and task == 'turning'")["ageing"].to_numpy()
    assert ageing[1] < -1.0 < 0.1 < ageing[0]


def test_forward_scores_are_those_of_train(turned) -> None:
    found = drift(MLP((4,)), turned, TIME, folds=3, runs=2, epochs=20, seed=3, device="cpu")
    before, later = ([rows_of(turned, TIME == 0), rows_of(turned, TIME == 1)])
    kept, held = turned.keep_cells(before), turned.keep_cells(later)
    by_seed = [bmtl.train(MLP((4,)), kept, seed=seed, epochs=20, device="cpu").score(held)["lpd"] for seed in (3, 4)]
    first = found.table().query("arm == 'shared' and block == 1")
    np.testing.assert_allclose(first["forward"], np.mean(by_seed, axis=0), rtol=1e-3, atol=1e-3)
    assert first["n"].tolist() == [int(mask.sum()) for mask in later]
    figure = found.plot()
    figure.canvas.draw()
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == found.summary()["task"].tolist()


def rows_of(tasks: bmtl.Tasks, mask: np.ndarray) -> list[np.ndarray]:
    return [mask[rows] for rows in tasks.rows]


def test_what_drift_refuses(turned) -> None:
    with pytest.raises(bmtl.TaskError, match="drift compares tasks"):
        drift(MLP((4,)), turned.select(["steady"]), TIME)
    with pytest.raises(ValueError, match="runs must be ≥ 2"):
        drift(MLP((4,)), turned, TIME, runs=1)
    with pytest.raises(bmtl.TaskError, match="no input 'year'"):
        drift(MLP((4,)), turned, "year")
    late = np.where(np.isnan(turned.y[0][0]), 0, np.arange(turned.n_rows) < 2)
    with pytest.raises(bmtl.TaskError, match="cells to train on"):
        drift(MLP((4,)), turned, 1 - late, folds=1)


@pytest.mark.slow
def test_riders_of_later_months_are_not_those_of_winter() -> None:
    data = pd.read_csv(Path(__file__).parents[2] / "case_studies" / "data" / "bikeshare.csv")
    frame = data.sample(2000, random_state=0).sort_index().reset_index(drop=True)
    inputs, riders = ["workingday", "temp", "hum"], ["casual", "registered"]
    for k in (1, 2):
        frame[f"sin {k}"], frame[f"cos {k}"] = (wave(np.pi * k * frame["hr"] / 12) for wave in (np.sin, np.cos))
        inputs += [f"sin {k}", f"cos {k}"]
    tasks = bmtl.Tasks.from_frame(frame, inputs, dict.fromkeys(riders, "negative_binomial"))
    months = pd.factorize(frame["mnth"])[0]
    summary = drift(MLP((16,)), tasks, months, folds=4, runs=3, epochs=200, device="cpu").summary()
    assert summary["task"].tolist() == ["registered", "casual"]
    assert summary["ages"].tolist() == ["both", "both"]
