"""The case study of meat spectra: its data, and that water and fat are one function only as long as little is seen."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def study(read_study: Callable[[str], ModuleType]) -> ModuleType:
    return read_study("spectra")


def test_data(study: ModuleType) -> None:
    frame, outputs, inputs = study.read()
    assert frame.shape == (215, 13) and list(outputs) == ["water", "fat", "protein"] and len(inputs) == 10
    assert np.corrcoef(frame["water"], frame["fat"])[0, 1] < -0.98
    # Principal components: uncorrelated, the largest first.
    spread = frame[inputs].cov().to_numpy()
    np.testing.assert_allclose(spread, np.diag(np.diag(spread)), atol=1e-9 * spread.max())
    assert np.all(np.diff(np.diag(spread)) < 0)


def test_data_come_with_the_note_that_they_ask_for(study: ModuleType) -> None:
    assert "The data can be\n> redistributed as long as this permission note is attached" in (
        study.DATA.with_suffix(".md").read_text("utf-8")
    )


def test_through_one_component_they_are_one_function(study: ModuleType) -> None:
    (row,) = study.seen_through((1,)).itertuples()
    assert row.p_merge > 0.65 and row.correlation < -0.7


@pytest.mark.slow
def test_through_ten_they_are_two(quick: Callable[..., Any]) -> None:
    advice = quick("spectra")
    pair = advice.pairs.set_index(["task_a", "task_b"]).loc[("water", "fat")]
    assert pair["p_merge"] < 0.05 < 0.9 < pair["p_weight"] and pair["correlation"] < -0.5
    table = advice.differences.pivot(index="task", columns="arrangement")
    gap = table["difference"]["merged"] - table["difference"]["weighted"]
    se = np.hypot(table["se"]["merged"], table["se"]["weighted"])
    assert gap.sum() < -100 and gap.sum() < -3 * np.sqrt((se**2).sum())
    assert advice.arrangement.relation("water", "fat") != "merge"
