"""The data of Sachs et al., and what is said of them."""

from __future__ import annotations

import numpy as np

from benchmarks.causal import sachs
from benchmarks.causal.problems import is_acyclic

SIZES = {
    "cd3cd28": 853, "icam2": 902, "aktinhib": 911, "g0076": 723, "psitect": 810, "u0126": 799, "ly": 848, "pma": 913,
    "b2camp": 707,
}


def test_cells_of_nine_conditions():
    frame, proteins = sachs.cells()
    assert frame["condition"].value_counts(sort=False).to_dict() == SIZES
    assert len(proteins) == 11
    assert frame[proteins].min().min() > 0


def test_references_are_acyclic_and_differ_by_what_the_authors_missed_and_reversed():
    found, reported = (graph.to_numpy() for graph in sachs.references(sachs.cells()[1]).values())
    assert (found.sum(), reported.sum()) == (17, 20)
    assert is_acyclic(found) and is_acyclic(reported)
    assert ((found & ~reported).sum(), (found & reported.T).sum(), (reported & ~found & ~found.T).sum()) == (1, 1, 3)


def test_cells_that_a_reagent_set_are_marked():
    for anywhere, inputs in ((False, 4), (True, 8)):
        tasks = sachs.nine(anywhere=anywhere)
        assert (len(tasks.X), len(tasks.inputs)) == (7466, inputs)
        marked = {name: int(marks.sum()) for name, marks in zip(tasks.names, tasks.intervened, strict=True)}
        sizes = {"akt": 911, "pkc": 723 + 913, "pip2": 810, "pka": 707}
        assert marked == dict.fromkeys(tasks.names, 0) | sizes
    assert len(sachs.observational().X) == 853
    assert not any(np.any(marks) for marks in sachs.observational().intervened)
