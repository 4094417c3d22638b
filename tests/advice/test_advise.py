"""Advice from tasks to verdicts, through the fits."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import bmtl
from bmtl.findings import Finding
from bmtl.models import Decoupled, SharedTrunk
from bmtl.trunks import Identity

QUICK = {"folds": 2, "restarts": 1, "max_steps": 20_000}
PAIR_COLUMNS = [
    "task_a", "task_b", "verdict", "p_merge", "p_weight", "p_decouple", "elpd_gain_a", "se_a", "elpd_gain_b", "se_b",
    "correlation", "why",
]


def linear(seed: int = 0, n: int = 200) -> bmtl.Tasks:
    """A task, its sign-flipped twin in other units, and a linear function at right angles to both."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    f, g = X @ [1.0, 0.7, 0.0, 0.0], X @ [0.0, 0.0, 1.0, -0.7]
    noise = rng.normal(size=(3, n))
    Y = np.column_stack([f + 0.4 * noise[0], 5.0 - 30.0 * f + 15.0 * noise[1], g + 0.4 * noise[2]])
    return bmtl.Tasks.from_arrays(X, Y, families=["gaussian"] * 3, names=["a", "twin", "other"])


@pytest.fixture(scope="module")
def advice() -> bmtl.Advice:
    return bmtl.advise(SharedTrunk(trunk=Identity()), linear(), seed=0, **QUICK)


def verdicts(advice: bmtl.Advice) -> dict[frozenset[str], str]:
    return {frozenset((row.task_a, row.task_b)): row.verdict for row in advice.pairs.itertuples()}


def test_verdicts_and_their_probabilities(advice) -> None:
    found = verdicts(advice)
    assert advice.effects is None
    assert found[frozenset(("a", "twin"))] == "merge"
    assert found[frozenset(("a", "other"))] == "decouple"
    assert found[frozenset(("twin", "other"))] == "decouple"
    assert set(PAIR_COLUMNS) <= set(advice.pairs.columns)
    np.testing.assert_allclose(advice.pairs[["p_merge", "p_weight", "p_decouple"]].sum(axis=1), 1.0)


def test_arrangement_follows_and_names_the_sign(advice) -> None:
    assert advice.arrangement.relation("a", "twin") == "merge"
    assert advice.arrangement.relation("a", "other") == "decouple"
    assert len(advice.arrangement.flipped) == 1
    assert advice.verdict == "mixed"
    assert advice.fit.arrangement == advice.arrangement


def test_reasons_name_sign_and_scale(advice) -> None:
    why = advice.pairs.set_index(["task_a", "task_b"]).loc[("a", "twin"), "why"]
    assert "sign flipped" in why
    assert "in other units" in why
    scale = advice.pairs.set_index(["task_a", "task_b"]).loc[("a", "twin"), "scale"]
    assert -33 < scale < -27


def test_task_table_is_whole(advice) -> None:
    table = advice.tasks
    assert list(table["task"]) == ["a", "twin", "other"]
    for arrangement in ("decoupled", "weighted", "merged", "recommended"):
        assert np.isfinite(table[f"elpd_{arrangement}"]).all()
        assert (table[f"se_{arrangement}"] > 0).all()
    gain = table["elpd_recommended"] - table["elpd_decoupled"]
    np.testing.assert_allclose(table["gain"], gain, atol=1e-3)
    truth = np.array([0.4, 15.0, 0.4])
    assert ((table["noise_low"] < 1.15 * truth) & (table["noise_high"] > 0.87 * truth)).all()


def test_merging_what_is_not_one_function_costs(advice) -> None:
    """The comparison of arrangements can tell: one function cannot be both, whichever of them it becomes."""
    merged = advice.differences[advice.differences["arrangement"] == "merged"]
    assert merged["difference"].sum() < -5 * np.sqrt((merged["se"] ** 2).sum())


def test_printed_advice_says_what_the_tables_say(advice) -> None:
    text = str(advice)
    assert str(advice.arrangement) in text
    for row in advice.pairs.itertuples():
        assert row.verdict in text
    assert advice.evidence in text


def test_order_and_units_of_tasks_and_order_of_rows_change_no_verdict(advice) -> None:
    base = linear()
    rng = np.random.default_rng(1)
    order = rng.permutation(base.n_rows)
    Y = np.column_stack([y[np.argsort(rows)] for y, rows in zip(base.y, base.rows, strict=True)])
    columns = [2, 0, 1]
    Y = Y[order][:, columns] * [1e3, 1e-3, 7.0] + [1.0, 5.0, -40.0]
    names = [base.names[t] for t in columns]
    moved = bmtl.Tasks.from_arrays(base.X[order], Y, families=["gaussian"] * 3, names=names)
    other = bmtl.advise(SharedTrunk(trunk=Identity()), moved, seed=0, **QUICK)
    assert verdicts(other) == verdicts(advice)
    # The first task of a head carries no sign, whichever that is: compare who goes with whom.
    assert other.arrangement.trunks == advice.arrangement.trunks


def test_unconverged_advice_is_undecided() -> None:
    advice = bmtl.advise(SharedTrunk(trunk=Identity()), linear(n=60), folds=2, restarts=1, max_steps=250)
    assert set(advice.pairs["verdict"]) == {"undecided"}
    assert advice.verdict == "undecided"
    assert any("did not converge" in warning for warning in advice.warnings)
    assert not (advice.tasks["checks"] == "ok").any()


def test_diagnostics_are_told_where_they_belong(advice) -> None:
    of_one = Finding("capacity", ("twin",), "twin competes.")
    of_two = Finding("conflict", ("other", "a"), "They conflict.")
    informed = advice.with_findings(SimpleNamespace(findings=lambda: [of_one])).with_findings(
        SimpleNamespace(findings=lambda: [of_two])
    )
    assert informed.why("twin") == f"{advice.why('twin')} twin competes."
    assert informed.why("a", "other") == informed.why("other", "a") == f"{advice.why('a', 'other')} They conflict."
    assert informed.why("a") == advice.why("a") and informed.why("a", "twin") == advice.why("a", "twin")
    assert "other, a (conflict): They conflict." in str(informed) and "Diagnostics" not in str(advice)
    assert advice.findings == ()
    with pytest.raises(bmtl.TaskError, match="no task 'nobody'"):
        advice.with_findings(SimpleNamespace(findings=lambda: [Finding("drift", ("nobody",), "")]))
    with pytest.raises(TypeError, match="got int, without findings"):
        advice.with_findings(3)


def test_permuted_control_is_decoupled() -> None:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(1500, 3))
    rate = np.exp(0.2 + 0.8 * X[:, 0])
    frame = pd.DataFrame(X, columns=["u", "v", "w"]).assign(
        count=rng.poisson(rate), yes=(rng.random(1500) < 1 / (1 + np.exp(-1.5 * X[:, 0]))).astype(int)
    )
    tasks = bmtl.Tasks.from_frame(frame, inputs=["u", "v", "w"], outputs={"count": "poisson", "yes": "bernoulli"})
    advice = bmtl.advise(SharedTrunk(trunk=Identity()), tasks.permuted("count", seed=0), **QUICK)
    control = advice.pairs[advice.pairs["task_b"] == "count (permuted)"]
    assert list(control["verdict"]) == ["decouple"] * 2
    # One linear predictor behind a count and a yes/no: merge or weight, whichever, but not apart.
    assert advice.pairs[advice.pairs["task_b"] == "yes"]["p_decouple"].item() < 0.05


def test_nuts_is_compared_by_importance_sampling() -> None:
    tasks = linear(n=80).select(["a", "other"])
    advice = bmtl.advise(
        SharedTrunk(trunk=Identity()), tasks, method="nuts", folds=2, warmup=300, draws=300, target_accept=0.95, seed=1
    )
    assert advice.evidence == "PSIS-LOO, cells left out"
    assert advice.fit.method == "nuts"


def test_bad_calls_say_what_is_wrong() -> None:
    tasks = linear()
    with pytest.raises(bmtl.TaskError, match="at least 2; got 1: 'a'"):
        bmtl.advise(SharedTrunk(), tasks.select(["a"]))
    with pytest.raises(TypeError, match="Decoupled has none"):
        bmtl.advise(Decoupled(), tasks)
    with pytest.raises(TypeError, match="did you mean SharedTrunk"):
        bmtl.advise(SharedTrunk, tasks)
    with pytest.raises(ValueError, match="folds must be at least 2, got 1"):
        bmtl.advise(SharedTrunk(), tasks, folds=1)
    with pytest.raises(TypeError, match="no option speed"):
        bmtl.advise(SharedTrunk(), tasks, speed=11)


@pytest.mark.slow
def test_causes_are_asked_for_and_rule_merging_out() -> None:
    """Task b follows a, and one input acts on b directly against what it does through a."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    a = X @ [1.0, 0.8, 0.0] + 0.5 * rng.normal(size=300)
    b = a - X @ [2.5, 0.0, 0.6] + 0.5 * rng.normal(size=300)
    tasks = bmtl.Tasks.from_arrays(X, np.column_stack([a, b]), ["gaussian"] * 2, names=["a", "b"])
    known = bmtl.EdgePrior(required=[("a", "b")])
    found = bmtl.advise(SharedTrunk(trunk=Identity()), tasks, seed=0, causes=known, **QUICK)
    assert found.effects is not None and found.effects.at_odds("a", "b")
    assert found.pairs["p_merge"][0] == 0.0 and found.arrangement.relation("a", "b") != "merge"
    assert "b lies downstream of a" in found.why("a", "b") and "Merging is refused" in found.why("a", "b")
