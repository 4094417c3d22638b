"""From left-out cells to a decision: harm, better arrangements, and what both do to probabilities."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

import bmtl
from bmtl.advice import _advise as module
from bmtl.advice import decide, reasons
from bmtl.advice.arrange import Ranked, kind_of, labels_of
from bmtl.advice.confirm import Trial, agreed
from bmtl.advice.screen import Screen, screen
from bmtl.arrangement import Arrangement
from bmtl.models import SharedTrunk
from bmtl.tasks import Tasks

ROWS = 50
NAMES = ("a", "b", "c")
APART, SHARED = Arrangement.decoupled(NAMES), Arrangement.shared(NAMES)
PAIR = Arrangement(((("a", "b"),), (("c",),)))


def tasks_of(importance=None) -> Tasks:
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(ROWS, 1)), rng.normal(size=(ROWS, 3))
    return Tasks.from_arrays(X, Y, ["gaussian"] * 3, names=list(NAMES), importance=importance)


def trial(arrangement: Arrangement, gains: list[float], spread: float = 0.0, importance=None) -> Trial:
    """A trial whose tasks gain so many nats in all over pointwise zeros, with a standard deviation a cell."""
    noise = np.tile([spread, -spread], ROWS // 2)
    pointwise = [gain / ROWS + noise for gain in gains]
    return Trial(arrangement, tasks_of(importance), [np.arange(ROWS)] * 3, pointwise, "stub")


NOTHING = trial(APART, [0.0] * 3)


def test_harm_lowers_the_odds_of_sharing_by_its_probability() -> None:
    """What two tasks lose together counts, with the standard error of rows, on which both have the same noise here."""
    factor = decide.sharing([trial(SHARED, [-11.0, 5.0, 20.0], spread=0.4)], NOTHING)
    z = -6.0 / np.hypot(2 * 0.4 * np.sqrt(ROWS), 4.0 * np.sqrt(2.0))
    odds = stats.norm.cdf(z) / stats.norm.cdf(-z)
    assert factor.shape == (2, 3, 3)
    off = ~np.eye(3, dtype=bool)
    assert np.all(factor[0][off] == 1.0)
    assert factor[1, 0, 1] == pytest.approx(odds)
    # The third task gains more than the first loses.
    assert factor[1, 0, 2] == 1.0 and factor[1, 1, 2] == 1.0
    np.testing.assert_array_equal(factor, factor.transpose(0, 2, 1))


def test_rows_of_one_task_only_count_for_it() -> None:
    """Tasks on different rows: their noises add as independent ones do."""
    half = [np.arange(ROWS // 2), np.arange(ROWS // 2, ROWS), np.arange(ROWS)]
    noise = np.tile([0.4, -0.4], ROWS // 2)[: ROWS // 2]
    pointwise = [-8.0 / len(half[0]) + noise[: len(half[0])], noise[: len(half[0])], np.zeros(ROWS)]
    own = dataclasses.replace(trial(SHARED, [0.0] * 3), rows=half, pointwise=pointwise)
    nothing = dataclasses.replace(NOTHING, rows=half, pointwise=[np.zeros(len(rows)) for rows in half])
    gaps = decide.by_row(own, nothing)
    assert gaps.shape == (ROWS, 3) and np.all(gaps[ROWS // 2 :, 0] == 0.0)
    z = gaps.sum() / np.sqrt(ROWS * gaps.sum(axis=1).var() + 32.0)
    assert decide.sharing([own], nothing)[1, 0, 1] == pytest.approx(stats.norm.cdf(z) / stats.norm.cdf(-z))


def test_harm_to_one_head_is_no_harm_to_one_trunk() -> None:
    factor = decide.sharing([trial(PAIR, [-12.0, 0.0, -9.0])], NOTHING)
    assert factor[0, 0, 1] < 0.05 and factor[1, 0, 1] == 1.0
    # Task c shares with nobody.
    assert factor[0, 0, 2] == factor[1, 0, 2] == 1.0


def test_the_worst_of_several_trials_counts() -> None:
    one, two = trial(SHARED, [-9.0, 0.0, 0.0]), trial(SHARED, [-20.0, 0.0, 0.0])
    assert decide.sharing([two, one], NOTHING)[1, 0, 1] == decide.sharing([two], NOTHING)[1, 0, 1]


def test_what_cannot_be_one_is_what_else_was_probable() -> None:
    p = np.full((3, 3, 3), 1 / 3)
    p[:, 0, 1] = p[:, 1, 0] = [0.9, 0.08, 0.02]
    p[:, 0, 2] = p[:, 2, 0] = [1.0, 0.0, 0.0]
    one = np.eye(3, dtype=bool)
    one[1, 2] = one[2, 1] = True
    with np.errstate(divide="ignore"):
        found = np.exp(decide.not_one(np.log(p), one))
    np.testing.assert_allclose(found[:, 0, 1], [0.0, 0.8, 0.2])
    np.testing.assert_allclose(found[:, 0, 2], [0.0, 0.5, 0.5])
    np.testing.assert_array_equal(found[:, 1, 2], p[:, 1, 2])
    np.testing.assert_array_equal(found[:, 0, 0], p[:, 0, 0])


def test_probabilities_after_harm_sum_to_one() -> None:
    p = np.full((3, 3, 3), 1 / 3)
    p[:, 0, 1] = p[:, 1, 0] = [0.0, 0.9, 0.1]
    factor = np.ones((2, 3, 3))
    factor[1, 0, 1] = factor[1, 1, 0] = 0.01
    with np.errstate(divide="ignore"):
        found = np.exp(decide.less_sharing(np.log(p), factor))
    np.testing.assert_allclose(found.sum(axis=0), 1.0)
    np.testing.assert_allclose(found[:, 0, 1], np.array([0.0, 0.009, 0.1]) / 0.109)
    np.testing.assert_allclose(found[:, 0, 2], 1 / 3)


@pytest.mark.parametrize(
    ("gain", "spread", "switch"), [(10.0, 0.1, True), (3.9, 0.0, False), (10.0, 0.9, False)],
    ids=["clear", "small", "noisy"],
)
def test_another_arrangement_must_be_better_beyond_noise(gain, spread, switch) -> None:
    """Standard errors of three cells a row, √50 · 3 · spread: 2 and 19 nats."""
    other = trial(SHARED, [gain, 0.0, 0.0], spread=spread)
    found = decide.better_than(NOTHING, [NOTHING, other], ())
    assert found is (other if switch else None)


def test_the_best_of_several_is_taken() -> None:
    good, best = trial(SHARED, [10.0, 0.0, 0.0]), trial(PAIR, [12.0, 0.0, 0.0])
    assert decide.better_than(NOTHING, [NOTHING, good, best], ()) is best


def test_no_switch_that_harms_anybody_beyond_noise() -> None:
    assert decide.better_than(NOTHING, [NOTHING, trial(SHARED, [30.0, -10.0, 0.0])], ()) is None


def test_no_switch_that_harms_a_protected_task_at_all() -> None:
    other = trial(SHARED, [30.0, -1.0, 0.0])
    assert decide.better_than(NOTHING, [NOTHING, other], ()) is other
    assert decide.better_than(NOTHING, [NOTHING, other], ("b",)) is None


def test_a_harm_of_next_to_nothing_beside_a_great_gain_is_none() -> None:
    """Task b loses 8 nats over 50 cells, task a gains 20 over five, or over fifty."""
    few, many = trial(SHARED, [20.0, -8.0, 0.0]), trial(SHARED, [20.0, -8.0, 0.0])
    few = dataclasses.replace(few, rows=[np.arange(5), *few.rows[1:]], pointwise=[np.full(5, 4.0), *few.pointwise[1:]])
    alone = dataclasses.replace(NOTHING, rows=few.rows, pointwise=[np.zeros(5), *NOTHING.pointwise[1:]])
    assert decide.harmed_by(few, alone, ()) == []
    assert decide.harmed_by(few, alone, ("b",)) == ["b"]
    assert decide.harmed_by(many, NOTHING, ()) == ["b"]
    # On another trunk than the one that gains it is harm.
    other = Arrangement(((("a",),), (("b",), ("c",))))
    assert decide.harmed_by(dataclasses.replace(few, arrangement=other), alone, ()) == ["b"]


def test_tasks_count_by_the_observation() -> None:
    found, se, small = decide.balance(trial(SHARED, [5.0, 10.0, 0.0], spread=0.2), NOTHING)
    assert found == pytest.approx(15.0 / ROWS / 3)
    assert se == pytest.approx(0.6 * np.sqrt(ROWS) / ROWS / 3)
    assert small == pytest.approx(decide.SMALL * np.sqrt(3) / ROWS / 3)


@pytest.mark.parametrize(("with_c", "kept"), [(30.0, True), (0.1, False)])
def test_a_task_alone_stays_out_unless_others_gain_by_it(with_c, kept) -> None:
    """The pairs join a and b in one head; one trunk for all predicts better, for c or whatever it has on it."""
    joined = trial(Arrangement(((("a", "b"),), (("c",),))), [0.0] * 3)
    shared = trial(SHARED, [20.0, 20.0, with_c])
    without = trial(Arrangement(((("a",), ("b",)), (("c",),))), [20.0, 20.0, 0.0])
    asked = []

    def run(arrangement: Arrangement) -> Trial:
        asked.append(arrangement)
        return without

    found = decide.instead(joined, [NOTHING, shared], (), run)
    assert [str(own) for own in asked] == ["{a, b} | {c}"]
    assert found is (shared if kept else without)


def test_nothing_better_nothing_tried() -> None:
    assert decide.instead(NOTHING, [NOTHING, trial(SHARED, [0.0] * 3)], (), lambda _: pytest.fail("tried")) is None


def test_importance_weights_the_comparison() -> None:
    """What a gains b loses in part, too little to be harmed; next to nobody minds b."""
    gains, importance = [7.0, -3.9, 0.0], {"a": 1.0, "b": 0.01, "c": 1.0}
    assert decide.better_than(NOTHING, [NOTHING, trial(SHARED, gains)], ()) is None
    weighted = trial(SHARED, gains, importance=importance)
    assert decide.better_than(trial(APART, [0.0] * 3, importance=importance), [NOTHING, weighted], ()) is weighted


def test_total_sums_cells_of_a_row_before_their_spread() -> None:
    """Three tasks that go the same way on every row: the error is three times that of one, not √3 times."""
    total, se = decide.total(trial(SHARED, [1.0, 2.0, 3.0], spread=0.2), NOTHING, np.ones(3))
    assert total == pytest.approx(6.0) and se == pytest.approx(0.6 * np.sqrt(ROWS))


def test_kinds_of_arrangements() -> None:
    for arrangement, kind in (
        (APART, "decouple"), (SHARED, "weight"), (PAIR, "mixed"), (Arrangement(((NAMES,),)), "merge")
    ):
        assert kind_of(labels_of(arrangement, NAMES)) == kind


@pytest.mark.slow
def test_unrelated_tasks_that_a_narrow_trunk_cannot_hold() -> None:
    """The screen sees a common representation; refits see that two units are too few, and they win."""
    rng = np.random.default_rng(2)
    X = rng.normal(size=(300, 8))
    first, second = np.tanh(2.5 * X[:, 0] - X[:, 1]), np.tanh(X[:, 0] + 2.5 * X[:, 1] + 0.5)
    third, fourth = np.tanh(2.0 * X[:, 0] + 2.0 * X[:, 1] - 1.0), np.tanh(2.5 * X[:, 0] - 2.0 * X[:, 1] + 1.0)
    Y = np.column_stack([first + third, second - fourth]) + 0.15 * rng.normal(size=(300, 2))
    tasks = Tasks.from_arrays(X, Y, ["gaussian"] * 2, names=["a", "b"])
    advice = bmtl.advise(SharedTrunk(bmtl.trunks.MLP((2,))), tasks, seed=0, restarts=2)
    screened = advice.screen.pairs[0]
    assert screened.p_weight > 0.8
    assert advice.pairs["verdict"].item() == "decouple" and str(advice.arrangement) == "{a} | {b}"
    assert advice.verdict == "decouple" and advice.probability > 0.65
    assert "competition for the capacity" in advice.why("a", "b")


def test_arrangements_say_how_much_each_beats_the_next() -> None:
    labels = [((0, 0), (0, 1), (0, 2)), ((0, 0), (1, 1), (2, 2)), ((0, 0), (0, 0), (0, 0))]
    ranked = Ranked(labels, np.array([0.6, 0.3, 0.1]), {})
    table = module._arrangements(ranked, tasks_of(), np.ones((3, 3)))
    assert table["arrangement"].tolist() == ["{a, b, c}", "{a} | {b} | {c}", "{a = b = c}"]
    np.testing.assert_allclose(table["times_next"], [2.0, 3.0, np.nan])


@pytest.mark.parametrize(("gains", "helped"), [((9.0, 0.5), "to a"), ((0.5, 9.0), "to b"), ((9.0, 9.0), "")])
def test_help_that_goes_one_way_is_said(gains, helped) -> None:
    base = screen(tasks_of().select(["a", "b"]), linear=True)
    pair = dataclasses.replace(base.pairs[0], gain_a=gains[0], se_a=1.0, gain_b=gains[1], se_b=1.0, n_a=20, n_b=2000)
    screened = Screen([pair], np.ones(2), np.array([0.9, 0.123]))
    why = reasons.of_pair(pair, "weight", ["a", "b"], ["x"], screened)
    assert ("Measurable help goes one way, " + helped in why) == bool(helped)
    if helped == "to a":
        assert "explain 90% of it from 20 cells, 12% of b from 2,000." in why


@pytest.mark.parametrize(("gain", "se", "said"), [
    (3.0, 1.0, "better by 3.0 ± 1.0 nats"), (-3.0, 1.0, "worse by 3.0 ± 1.0 nats"), (0.0, 0.0, ""), (np.nan, 1.0, ""),
])
def test_the_answer_says_what_it_gains(gain, se, said) -> None:
    kinds = dict.fromkeys(("merge", "weight", "decouple", "mixed"), 0.25)
    text = reasons.of_set("decouple", kinds, "{a} | {b}", gain, se, "5-fold refits")
    assert said in text and ("unseen cells" in text) == bool(said)


def test_trunks_in_common_are_scored_once() -> None:
    """Task c is alone in both arrangements: the luckier of its two runs counts for both."""
    one, two = trial(PAIR, [5.0, 5.0, -13.0]), trial(APART, [1.0, 1.0, 2.0])
    ours, theirs = agreed([one, two], [one, two])
    np.testing.assert_allclose(ours.elpd, [5.0, 5.0, 2.0])
    np.testing.assert_allclose(theirs.elpd, [1.0, 1.0, 2.0])
    assert ours.over(theirs)[0][2] == 0.0 and ours.over(theirs)[1][2] == 0.0
    # Heads joined or flipped are another trunk.
    other = trial(Arrangement(((("a",), ("b",)), (("c",),))), [9.0, 9.0, 0.0])
    flipped = trial(Arrangement(((("a", "b"),), (("c",),)), frozenset({"b"})), [7.0, 7.0, 0.0])
    found = agreed([one], [one, other, flipped])
    np.testing.assert_allclose(found[0].elpd, [5.0, 5.0, 0.0])
