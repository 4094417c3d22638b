"""The case study of doctor visits: an exact sum, counts that spread, and a control that nothing is shared with."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def study(read_study: Callable[[str], ModuleType]) -> ModuleType:
    return read_study("doctor_visits")


def test_people(study: ModuleType) -> None:
    frame = study.read()
    assert len(frame) == 5190 and {*study.INPUTS, *study.COUNTS} <= set(frame)
    np.testing.assert_array_equal(frame[study.SUM], frame["prescrib"] + frame["nonpresc"])


def test_the_sum_is_warned_of(study: ModuleType) -> None:
    (message,) = study.warned(study.read(1_000))
    assert "'medecine' is exactly 'prescrib' + 'nonpresc'" in message


@pytest.mark.slow
def test_conclusions(quick: Callable[..., Any], study: ModuleType) -> None:
    warned, gains, advice = quick("doctor_visits")
    assert "is exactly" in warned[0] and study.SUM not in advice.arrangement.names
    # Days in hospital spread most, and are what a Poisson likelihood fails most.
    most = gains.loc[gains["gain"].idxmax()]
    assert most["task"] == "hospdays" and most["gain"] > max(2 * most["se"], most["n"])
    controls = advice.pairs[advice.pairs[["task_a", "task_b"]].isin([study.CONTROL]).any(axis=1)]
    assert not controls["verdict"].isin(["merge", "weight"]).any()
    assert ((study.CONTROL,),) in advice.arrangement.trunks
