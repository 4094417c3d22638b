"""Paths, confounds, mechanisms, split correlations and advice; and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import bmtl
from bmtl.causal import dag_posterior, effects, paths
from bmtl.errors import TaskError

NAMES = list("abcd")


def known(edges, n=400, seed=0, slope=0.8, acts=None, families=None):
    """Effects of Gaussian tasks with a known graph; ``acts`` (tasks, inputs) is what inputs do."""
    rng = np.random.default_rng(seed)
    acts = np.zeros((4, 2)) if acts is None else np.asarray(acts, dtype=float)
    X, Y = rng.normal(size=(n, 2)), np.zeros((n, 4))
    for t in range(4):
        causes = [NAMES.index(a) for a, b in edges if b == NAMES[t]]
        Y[:, t] = slope * Y[:, causes].sum(axis=1) + X @ acts[t] + rng.normal(size=n)
    if families:
        Y[:, 3] = rng.poisson(np.exp(0.5 * Y[:, 3]))
    tasks = bmtl.Tasks.from_arrays(X, Y, families or ["gaussian"] * 4, names=NAMES)
    pairs = [(a, b) for a in NAMES for b in NAMES if a != b]
    prior = bmtl.EdgePrior(required=edges, forbidden=[pair for pair in pairs if pair not in edges])
    return effects(tasks, dag_posterior(tasks, prior), graphs=200, draws=2)


DIAMOND = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]


def p_of(found, a, b):
    return found.relations(a, b).set_index(["relation", "form"])["p"]


def test_paths_of_a_known_graph():
    found = known(DIAMOND)
    table = found.paths("a", "d")
    assert set(table["path"]) == {"a → b → d", "a → c → d"}
    np.testing.assert_allclose(table["p"], 1.0)
    slopes = found.draws.slopes
    through_b = table.set_index("path").loc["a → b → d"]
    assert through_b["slope"] == pytest.approx(np.mean(slopes[:, 0, 1] * slopes[:, 1, 3]), abs=1e-12)
    assert table["slope"].sum() == pytest.approx(found.total("a", "d")["mean"], abs=1e-12)
    assert table["std"].sum() == pytest.approx(found.total("a", "d")["std"], abs=1e-12)
    assert found.paths("d", "a").empty
    assert found.total("d", "a")["p_none"] == 1.0
    assert found.total("d", "a")["mean"] == 0.0


def test_all_paths_are_found():
    graph = np.triu(np.ones((7, 7), dtype=bool), 1)
    assert len(paths.directed(graph, 0, 6)) == 2**5
    assert len(set(paths.directed(graph, 0, 6))) == 2**5


def test_confounds_of_a_known_graph():
    found = known(DIAMOND)
    pair = p_of(found, "b", "c")
    assert pair["fork", "b ← … → c"] == 1.0
    assert pair["collider", "b → … ← c"] == 1.0
    assert pair["pipe", "b → … → c"] == pair["edge", "b → c"] == pair["descendant", "c of b"] == 0.0
    ends = p_of(found, "a", "d")
    assert ends["pipe", "a → … → d"] == ends["descendant", "d of a"] == 1.0
    assert ends["fork", "a ← … → d"] == ends["collider", "a → … ← d"] == ends["edge", "a → d"] == 0.0
    table = found.relations("a", "d").set_index("relation")
    assert table.loc["pipe", "via"].iloc[0] == "b, c"
    # c is a cause of d, but reaches b through nothing: no fork of b and d behind a alone.
    assert p_of(found, "b", "d")["fork", "b ← … → d"] == 1.0
    assert found.relations("b", "d").set_index("relation").loc["fork", "via"] == "a"
    apart = known([("a", "c"), ("b", "c")])
    assert p_of(apart, "a", "b")["apart", "no path but through colliders"] == 1.0
    assert p_of(apart, "a", "d")["collider", "a → … ← d"] == 0.0


def test_a_mechanism_with_its_sign_flipped():
    found = known([("a", "d")], acts=[[1, 1], [-1, 0.7], [0, 0], [0, 0]])
    table = found.mechanisms().set_index(["input", "task_a", "task_b"])
    flipped, same = table.loc[("x0", "a", "b")], table.loc[("x1", "a", "b")]
    assert flipped["p_opposite"] > 0.999
    assert flipped["effect_a"] == pytest.approx(1, abs=0.15)
    assert flipped["effect_b"] == pytest.approx(-1, abs=0.15)
    assert flipped["effect_b_low"] < flipped["effect_b"] < flipped["effect_b_high"] < 0
    assert same["p_opposite"] < 0.001
    assert same["p_same"] > 0.999
    # d has the input from a, in total and not directly.
    assert table.loc[("x0", "a", "d"), "effect_b"] == pytest.approx(0.8, abs=0.15)
    direct = found.mechanisms(["x0"], direct=True).set_index(["task_a", "task_b"])
    assert abs(direct.loc[("a", "d"), "effect_b"]) < 0.1
    assert table.loc[("x0", "a", "c"), "p_opposite"] + table.loc[("x0", "a", "c"), "p_same"] < 0.3
    assert table.index[0][0] == "x0"


def test_merging_is_refused_where_mechanisms_differ_and_not_where_signs_do():
    differ = known([], acts=[[1, 1], [-1, 0.7], [0, 0], [0, 0]])
    text = differ.advice("a", "b")
    assert "Merging is refused: x0 (+" in text
    assert "while x1" in text
    # The order asked for is that of the sizes.
    assert "Merging is refused: x0 (-" in differ.advice("b", "a")
    flipped = known([], acts=[[1, 1], [-1, -0.7], [0, 0], [0, 0]]).advice("a", "b")
    assert "refused" not in flipped
    assert "with a sign flipped" in flipped
    assert "erg" not in known([], acts=[[1, 1], [1, 0.7], [0, 0], [0, 0]]).advice("a", "b")


def test_advice_names_the_confound():
    found = known(DIAMOND)
    assert "d lies downstream of a (p > 0.99): condition on a to predict d." in found.advice("a", "d")
    assert "Do not condition on d" in found.advice("a", "d")
    assert "Pipe a → b and c → d: leave b and c out for the total effect" in found.advice("d", "a")
    between = found.advice("b", "c")
    assert "Fork b ← a → c: condition on a" in between
    assert "Collider b → d ← c: do not condition on d" in between
    assert "nothing to do with each other" in known([("a", "c"), ("b", "c")]).advice("a", "b")


def test_a_hidden_common_cause_stays_unexplained():
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=500)
    Y = hidden[:, None] + rng.normal(size=(500, 2))
    tasks = bmtl.Tasks.from_arrays(rng.normal(size=(500, 1)), Y, ["gaussian"] * 2, names=["a", "b"])
    none = bmtl.EdgePrior(forbidden=[("a", "b"), ("b", "a")])
    found = effects(tasks, dag_posterior(tasks, none))
    parts = found.split("a", "b").set_index("part")["correlation"]
    assert parts["unexplained"] == pytest.approx(0.5, abs=0.1)
    assert parts["edge"] == 0.0
    assert "stays unexplained by any edge" in found.advice("a", "b")


@pytest.mark.parametrize("families", [None, ["gaussian"] * 3 + ["poisson"]])
def test_split_sums_to_the_correlation(families):
    found = known([("a", "b"), ("a", "d"), ("b", "d")], acts=[[1, 0], [0.5, 0], [0, 1], [0, 0.2]], families=families)
    y = np.column_stack(found.tasks.y)
    for a, b in (("a", "b"), ("b", "d"), ("c", "d")):
        parts = found.split(a, b)
        truth = np.corrcoef(y[:, NAMES.index(a)], y[:, NAMES.index(b)])[0, 1]
        assert parts["correlation"].iloc[:-1].sum() == pytest.approx(truth, abs=1e-9)
        assert parts["correlation"].iloc[-1] == pytest.approx(truth, abs=1e-9)
        assert abs(parts.set_index("part").loc["unexplained", "correlation"]) < 0.1


def test_parts_of_a_split_are_where_they_belong():
    # Var a = 2, of which an input has 1; b = a + e, c = a + e: their correlations by hand.
    found = known([("a", "b"), ("a", "c")], n=20_000, slope=1.0, acts=[[1, 0], [0, 0], [0, 0], [0, 0]])
    edge = found.split("a", "b").set_index("part")["correlation"]
    unit = np.sqrt(2 * 3)
    assert edge["inputs"] == pytest.approx(1 / unit, abs=0.02)
    assert edge["edge"] == pytest.approx(1 / unit, abs=0.02)
    assert edge["other tasks"] == pytest.approx(0, abs=1e-9)
    behind = found.split("b", "c").set_index("part")["correlation"]
    assert behind["inputs"] == pytest.approx(1 / 3, abs=0.02)
    assert behind["other tasks"] == pytest.approx(1 / 3, abs=0.02)
    assert behind["edge"] == 0.0


def test_what_is_refused():
    found = known(DIAMOND, families=["gaussian"] * 3 + ["poisson"])
    for call in (found.paths, found.relations, found.split, found.total, found.advice):
        with pytest.raises(TaskError, match="no task 'z'; the tasks are 'a', 'b', 'c', 'd'"):
            call("a", "z")
        with pytest.raises(TaskError, match="two different tasks are needed, got 'a' twice"):
            call("a", "a")
    with pytest.raises(TaskError, match="no task 'z'"):
        found.do({"z": 1.0})
    with pytest.raises(TaskError, match="values must map names of tasks to what they are set to, got 'a'"):
        found.do("a")
    with pytest.raises(TaskError, match=r"'d' \(poisson\) cannot be set to -1.0: it takes whole numbers ≥ 0"):
        found.do({"d": -1.0})
    with pytest.raises(TaskError, match=r"'a' \(gaussian\) cannot be set to nan"):
        found.do({"a": np.nan})
    with pytest.raises(TaskError, match="cannot be set to 'high'"):
        found.do({"a": "high"})
    with pytest.raises(TaskError, match="no input 'q'; the inputs are 'x0', 'x1'"):
        found.mechanisms(["q"])
    with pytest.raises(TaskError, match="expected 2 input columns"):
        found.do({}, np.ones((3, 5)))
    with pytest.raises(TaskError, match=r"'a' \(gaussian\) takes no exposure"):
        found.do({}, exposure={"a": 1.0})
    with pytest.raises(TaskError, match="exposure of 'd' must be a number or 3, got shape"):
        found.do({}, np.ones((3, 2)), exposure={"d": [1.0, 2.0]})
    with pytest.raises(TaskError, match=r"exposures of 'd' \(poisson\) must be finite and > 0"):
        found.do({}, exposure={"d": 0.0})
    for what, value in (("graphs", 0), ("draws", True), ("graphs", 2.5)):
        with pytest.raises(TaskError, match=f"{what} must be a whole number ≥ 1, got {value}"):
            effects(found.tasks, found.posterior, **{what: value})


def test_posteriors_of_other_tasks():
    rng = np.random.default_rng(2)
    X, Y = rng.normal(size=(50, 1)), rng.normal(size=(50, 2))
    tasks = bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 2, names=["a", "b"])
    posterior = dag_posterior(tasks)
    with pytest.raises(TaskError, match="the posterior is of other tasks: 'a', 'b', not 'a', 'c'"):
        effects(bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 2, names=["a", "c"]), posterior)
    changed = Y.copy()
    changed[3, 1] += 1
    for other, families in ((changed, ["gaussian"] * 2), (Y, ["gaussian", "student_t"]), (Y[:20], ["gaussian"] * 2)):
        own = bmtl.Tasks.from_arrays(X[: len(other)], other, families, names=["a", "b"])
        with pytest.raises(TaskError, match=r"outcomes of '[ab]' differ"):
            effects(own, posterior)


def test_labels_and_trials():
    rng = np.random.default_rng(3)
    n = 300
    a = rng.normal(size=n)
    trials = np.full((n, 3), np.nan)
    trials[:, 2] = 5
    Y = np.column_stack([
        a, np.searchsorted([-1.0, 1.0], a + rng.logistic(size=n)), rng.binomial(5, 1 / (1 + np.exp(-a)))
    ])
    tasks = bmtl.Tasks.from_arrays(
        rng.normal(size=(n, 1)), Y, ["gaussian", bmtl.families.Ordinal(("low", "mid", "high")), "binomial"],
        names=["a", "grade", "hits"], exposure=trials,
    )
    found = effects(tasks, dag_posterior(tasks), graphs=50)
    assert found.do({"grade": "high"}).values == {"grade": 2.0}
    assert set(np.unique(found.do({"a": 0.0}).outcomes["grade"])) <= {0.0, 1.0, 2.0}
    assert found.do({"hits": 3}).outcomes["hits"].max() == 3
    with pytest.raises(TaskError, match=r"'grade' \(ordinal\) cannot be set to 'best'; its labels are 'low', 'mid'"):
        found.do({"grade": "best"})
    with pytest.raises(TaskError, match=r"'hits' \(binomial\) needs an exposure: the number of trials"):
        found.do({}, np.ones((2, 1)))
    assert found.do({}, np.ones((2, 1)), exposure={"hits": [4, 9]}).outcomes["hits"][:, 0].max() <= 4
    with pytest.raises(TaskError, match=r"exposures of 'hits' \(binomial\) must be the number of trials"):
        found.do({"hits": 7})


def test_no_rows_to_split():
    rng = np.random.default_rng(4)
    X, Y = rng.normal(size=(40, 1)), rng.normal(size=(40, 2))
    marks = np.zeros((40, 2), dtype=bool)
    marks[:20, 0] = marks[20:, 1] = True
    tasks = bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 2, names=["a", "b"], intervened=marks)
    with pytest.raises(TaskError, match="set from outside on all but 0 rows"):
        effects(tasks, dag_posterior(tasks)).split("a", "b")
