"""A wider trunk, tried where sharing the given one harms: what it says, and when it is not tried at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import bmtl
from bmtl.advice.confirm import Trial
from bmtl.advice.widen import TIMES, Wider, told, widen
from bmtl.arrangement import Arrangement
from bmtl.models import SharedTrunk
from bmtl.trunks import MLP, Fourier, Linear
from case_studies.transfer_and_conflict import two_networks

NAMES = ("a", "b", "c")
ROWS = 50
APART, SHARED = Arrangement.decoupled(NAMES), Arrangement.shared(NAMES)


@dataclass
class Stub:
    """Trials whose gains by sharing are known for each trunk; it notes which trunks were tried."""

    gains: dict[Any, list[float]]
    model: Any = field(default_factory=lambda: SharedTrunk(MLP((4,))))
    problems: str = ""
    evidence: str = "stub"
    tried: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        self.tasks = bmtl.Tasks.from_arrays(
            rng.normal(size=(ROWS, 1)), rng.normal(size=(ROWS, 3)), ["gaussian"] * 3, names=list(NAMES)
        )

    def run(self, arrangements: list[Arrangement]) -> list[Trial]:
        self.tried.append(self.model.trunk)
        gains = self.gains[self.model.trunk]
        noise = np.tile([0.05, -0.05], ROWS // 2)
        cells = {SHARED: [gain / ROWS + noise for gain in gains], APART: [np.zeros(ROWS)] * 3}
        return [Trial(own, self.tasks, [np.arange(ROWS)] * 3, cells[own], self.evidence) for own in arrangements]

    def of(self, model: Any) -> Stub:
        return Stub(self.gains, model, self.problems, self.evidence, self.tried)

    def fit(self, arrangement: Arrangement) -> Any:
        return self


NARROW, WIDE = MLP((4,)), MLP((4 * TIMES,))


def found(narrow: list[float], wide: list[float], protect: tuple[str, ...] = (), **stub: Any) -> Wider | None:
    return widen(Stub({NARROW: narrow, WIDE: wide}, **stub), SHARED, APART, NAMES, protect)


def test_a_wider_trunk_lets_them_share() -> None:
    wider = found([-50.0, -30.0, 5.0], [0.0, -1.0, 6.0])
    assert wider is not None and wider.enough and wider.trunk == WIDE
    assert wider.tasks == ("a", "b") and wider.still == ()
    # Mean of −50 and −30 nats over 50 observations; two tasks' noises are the same on every row.
    assert wider.before == pytest.approx((-0.8, 0.05 / np.sqrt(ROWS)))
    assert wider.after[0] == pytest.approx(-0.01)
    assert wider.says.startswith("Widen the trunk before you decouple") and "of a and b by -0.800 ± 0.007" in wider.says
    assert "-0.010 ± 0.007 on one 4 times as wide (MLP(widths=(16,), activation='tanh'))" in wider.says


def test_a_wider_trunk_is_no_cure() -> None:
    wider = found([-50.0, -30.0, 5.0], [0.0, -20.0, 6.0])
    assert wider is not None and not wider.enough and wider.still == ("b",)
    assert wider.says.startswith("A wider trunk does not let b share")


def test_what_is_slight_beside_the_harm_before_is_none_unless_protected() -> None:
    assert found([-90.0, 0.0, 0.0], [-8.0, 0.0, 0.0]).enough
    assert found([-70.0, 0.0, 0.0], [-8.0, 0.0, 0.0]).still == ("a",)
    assert found([-90.0, 0.0, 0.0], [-8.0, 0.0, 0.0], protect=("a",)).still == ("a",)


def test_nothing_is_tried_where_nothing_is_harmed() -> None:
    stub = Stub({NARROW: [3.0, -1.0, 0.0]})
    assert widen(stub, SHARED, APART, NAMES, ()) is None and stub.tried == [NARROW]
    # Nor for a task that is not asked about, such as one whose relation drifts.
    stub = Stub({NARROW: [-50.0, 0.0, 0.0]})
    assert widen(stub, SHARED, APART, ["b", "c"], ()) is None and stub.tried == [NARROW]
    fixed = Stub({Fourier(4): [-50.0, 0.0, 0.0]}, model=SharedTrunk(Fourier(4)))
    assert widen(fixed, SHARED, APART, NAMES, ()) is None and fixed.tried == [Fourier(4)]


def test_a_wider_fit_that_did_not_converge_says_nothing() -> None:
    assert found([-50.0, 0.0, 0.0], [0.0, 0.0, 0.0], problems="not settled") is None


def test_reasons_are_told_where_they_bear() -> None:
    wider = found([-50.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    partly = Arrangement(((("a",), ("b",)), (("c",),)))
    both = told(wider, partly, [("a", "b"), ("a", "c"), ("b", "c")], ["p", "q", "r"])
    assert both == [f"p {wider.says}", "q", "r"]
    assert told(wider, partly, [("a",), ("b",)], ["p", "q"]) == [f"p {wider.says}", "q"]
    assert told(None, partly, [("a",)], ["p"]) == ["p"]


def test_trunks_of_the_same_kind() -> None:
    assert MLP((4, 8), "relu").wider(4) == MLP((16, 32), "relu")
    assert Linear(2).wider(3) == Linear(6)


@pytest.mark.slow
def test_a_narrow_trunk_that_harms_two_tasks_is_to_be_widened_before_they_are_decoupled() -> None:
    advice = bmtl.advise(SharedTrunk(MLP((8,))), two_networks(0), folds=2, restarts=3, device="cpu", seed=0)
    assert advice.verdict == "decouple"
    assert advice.wider is not None and advice.wider.enough
    assert advice.wider.tasks == ("first", "second") and advice.wider.trunk == MLP((32,))
    assert advice.wider.after[0] > 0.1 * advice.wider.before[0]
    printed = str(advice)
    assert printed.index("Widen the trunk") < printed.index("decouple (probability")
    assert advice.wider.says in advice.why("first", "second") and advice.wider.says in advice.why("first")
