"""The case study of proteins: its data, and that interventions help if they may reach further than their labels say."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmarks.causal.problems import is_acyclic
from benchmarks.causal.scoring import hamming

SIZES = {
    "cd3cd28": 853, "icam2": 902, "aktinhib": 911, "g0076": 723, "psitect": 810, "u0126": 799, "ly": 848, "pma": 913,
    "b2camp": 707,
}


@pytest.fixture(scope="module")
def study(read_study: Callable[[str], ModuleType]) -> ModuleType:
    return read_study("proteins")


def test_cells_of_nine_conditions(study: ModuleType) -> None:
    frame, proteins = study.cells()
    assert frame["condition"].value_counts(sort=False).to_dict() == SIZES
    assert len(proteins) == 11
    assert frame[proteins].min().min() > 0


def test_references_are_acyclic_and_differ_by_what_the_authors_missed_and_reversed(study: ModuleType) -> None:
    found, reported = (graph.to_numpy() for graph in study.references(study.cells()[1]).values())
    assert (found.sum(), reported.sum()) == (17, 20)
    assert is_acyclic(found) and is_acyclic(reported)
    assert ((found & ~reported).sum(), (found & reported.T).sum(), (reported & ~found & ~found.T).sum()) == (1, 1, 3)


def test_cells_that_a_reagent_set_are_marked(study: ModuleType) -> None:
    for anywhere, inputs in ((False, 4), (True, 8)):
        tasks = study.nine(anywhere=anywhere)
        assert (len(tasks.X), len(tasks.inputs)) == (7466, inputs)
        marked = {name: int(marks.sum()) for name, marks in zip(tasks.names, tasks.intervened, strict=True)}
        sizes = {"akt": 911, "pkc": 723 + 913, "pip2": 810, "pka": 707}
        assert marked == dict.fromkeys(tasks.names, 0) | sizes
    assert len(study.observational().X) == 853
    assert not any(np.any(marks) for marks in study.observational().intervened)


def test_distance_is_the_expected_hamming_distance(study: ModuleType, rng: np.random.Generator) -> None:
    graphs = np.triu(rng.random((200, 5, 5)) < 0.4, 1)
    orders = np.stack([rng.permutation(5) for _ in graphs])
    graphs = np.stack([own[np.ix_(order, order)] for own, order in zip(graphs, orders, strict=True)])
    truth = graphs[0]
    by_hand = np.mean([hamming(own, truth) for own in graphs])
    assert study.distance(graphs.mean(axis=0), truth) == pytest.approx(by_hand)


def test_chance_knows_the_right_graph_from_an_empty_one(study: ModuleType) -> None:
    truth = study.references(study.cells()[1])["found"].to_numpy()
    assert study.chance(0.9 * truth, truth, 99) == 0.01
    assert study.chance(np.zeros(truth.shape), truth, 99) == 1.0


def test_conclusions(quick: Callable[..., Any], study: ModuleType) -> None:
    table, sure = quick("proteins")
    watching, trusting, reaching = (table.set_index("analysis").loc[name] for name in study.TEXT)
    # Watching finds pairs, and not which way they point.
    assert watching["right"] + watching["reversed"] > 5 * watching["not among the 17"]
    assert 0.5 < watching["right"] / watching["reversed"] < 2 and watching["sure"] == 0
    # Labels that are trusted make sure of what is wrong; interventions that may reach further show directions.
    assert trusting["sure"] > 30 and trusting["of these right"] < 0.3 * trusting["sure"]
    assert reaching["right"] > 3 * reaching["reversed"] and reaching["of these right"] >= 5
    assert reaching["distance"] < watching["distance"] - 3 < 17 < trusting["distance"]
    assert reaching["by chance"] < 0.01 < trusting["by chance"]
    assert len(sure) == reaching["sure"] and {"yes"} < set(sure["in the 17"])
