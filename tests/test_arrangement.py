"""Arrangements: canonical form, relations, index arrays, JSON."""

from __future__ import annotations

import json
from itertools import permutations

import numpy as np
import pytest

from bmtl.arrangement import Arrangement
from bmtl.errors import TaskError

MIXED = Arrangement(((("c",), ("b", "a")), (("d",),)), frozenset({"b"}))


def test_equal_arrangements_are_equal_however_they_are_written() -> None:
    heads = [("a", "b"), ("c",)]
    for trunk in permutations(heads):
        for trunks in permutations([trunk, (("d",),)]):
            other = Arrangement(trunks, frozenset({"b"}))
            assert other == MIXED and hash(other) == hash(MIXED)
    assert MIXED.trunks == ((("a", "b"), ("c",)), (("d",),))


def test_lists_are_as_good_as_tuples() -> None:
    assert Arrangement([[["b", "a"], ["c"]], [["d"]]], {"b"}) == MIXED


@pytest.mark.parametrize(
    "other",
    [
        Arrangement(((("a", "b"), ("c",)), (("d",),))),
        Arrangement(((("a", "b"), ("c",), ("d",)),), frozenset({"b"})),
        Arrangement(((("a",), ("b",), ("c",)), (("d",),))),
    ],
    ids=["sign", "one trunk", "more heads"],
)
def test_different_arrangements_differ(other: Arrangement) -> None:
    assert other != MIXED


def test_only_relative_signs_count() -> None:
    names = ("a", "b", "c")
    assert Arrangement.merged(names, "a") == Arrangement.merged(names, ("b", "c"))
    assert Arrangement.merged(names, names) == Arrangement.merged(names)
    assert Arrangement.merged(names, ("c",)).flipped == {"c"}
    assert Arrangement.merged(names, ("a",)).flipped == {"b", "c"}


def test_a_head_of_one_task_has_no_sign() -> None:
    assert Arrangement.shared(("a", "b")) == Arrangement(((("a",), ("b",)),), frozenset({"b"}))


def test_relation() -> None:
    assert MIXED.relation("a", "b") == MIXED.relation("b", "a") == "merge"
    assert MIXED.relation("a", "c") == MIXED.relation("c", "b") == "weight"
    assert MIXED.relation("d", "a") == MIXED.relation("c", "d") == "decouple"
    with pytest.raises(TaskError, match=r"task 'e' is not in the arrangement; it holds \['a', 'b', 'c', 'd'\]"):
        MIXED.relation("a", "e")


@pytest.mark.parametrize(
    ("make", "expected"),
    [(Arrangement.shared, "weight"), (Arrangement.decoupled, "decouple"), (Arrangement.merged, "merge")],
)
def test_extremes(make, expected: str) -> None:
    arrangement = make(("x", "z", "y"))
    assert {arrangement.relation(a, b) for a, b in permutations("xyz", 2)} == {expected}
    assert sorted(arrangement.names) == ["x", "y", "z"]


@pytest.mark.parametrize("names", list(permutations("abcd")))
def test_plan_follows_the_order_of_the_tasks(names) -> None:
    plan = MIXED.plan(names)
    assert (plan.n_trunks, plan.n_heads) == (2, 3)
    assert np.all(np.diff(plan.trunk_of_head) >= 0)
    for i, a in enumerate(names):
        assert plan.sign[i] == (-1 if a == "b" else 1)
        for j, b in enumerate(names):
            if a != b:
                same_head = plan.head_of[i] == plan.head_of[j]
                same_trunk = len(set(plan.trunk_of_head[plan.head_of[[i, j]]])) == 1
                assert MIXED.relation(a, b) == ("merge" if same_head else "weight" if same_trunk else "decouple")


@pytest.mark.parametrize("names", [("a", "b", "c"), ("a", "b", "c", "d", "e"), ("a", "b", "c", "e")])
def test_plan_needs_exactly_its_tasks(names) -> None:
    with pytest.raises(TaskError, match=r"the arrangement holds \['a', 'b', 'c', 'd'\], but the tasks are"):
        MIXED.plan(names)


def test_json_there_and_back() -> None:
    assert Arrangement.from_json(json.loads(json.dumps(MIXED.to_json()))) == MIXED


def test_errors_name_the_tasks() -> None:
    with pytest.raises(TaskError, match=r"more than once in the arrangement: \['a'\]"):
        Arrangement(((("a", "b"),), (("a",),)))
    with pytest.raises(TaskError, match=r"flipped tasks are not in the arrangement: \['z'\]"):
        Arrangement.shared("ab").merged("ab", "z")


def test_words() -> None:
    assert str(MIXED) == "{a = −b, c} | {d}"
