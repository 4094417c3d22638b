"""Benchmarks of speed: times side by side, and no figures without a GPU."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from benchmarks import gpu
from benchmarks.speed import nuts, svi
from benchmarks.speed.timing import compared, interleaved


def test_calls_take_turns_and_the_first_turn_is_not_timed() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in ("a", "b")}
    found = interleaved(calls, repeats=3, times=2)
    assert "".join(order) == "aabb" * 4
    assert all(len(seconds) == 3 for own in found.values() for seconds in own.values())


def test_medians_and_ratios() -> None:
    found = {name: {"wall": own, "cpu": own} for name, own in {"a": [2.0, 9.0, 4.0], "b": [1.0, 3.0, 1.0]}.items()}
    own = compared(found, "a", "b")
    assert own["a_wall"] == 4.0 and own["b_cpu"] == 1.0 and own["ratio_wall"] == 3.0


def test_both_steps_train_the_same_network() -> None:
    """The products that are timed are those of the layers, and either step moves what it should."""
    X, Y = svi.problem(32)
    for step in (svi.ours, svi.plain, lambda X, Y, width, device: svi.products(len(X), width, device)):
        step(X, Y, 8, torch.device("cpu"))()


def test_without_a_device_it_says_so(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit, match="no CUDA device"):
        gpu.main()


def test_ratios_are_of_the_same_problem() -> None:
    measured = [("p", "bmtl", 10.0), ("p", "nutpie", 2.0), ("p", "bmtl", 30.0), ("p", "nutpie", 3.0)]
    measured += [("q", "bmtl", 5.0), ("q", "nutpie", 10.0)]
    runs = [{"problem": problem, "side": side, "ess_a_second_first_wall": own} for problem, side, own in measured]
    found = nuts.ratios(runs)
    assert [(own["problem"], own["ess_a_second_first_wall"]) for own in found] == [("p", 7.5), ("q", 0.5)]


def test_effective_size_is_that_of_the_worst_quantity(rng) -> None:
    good = rng.normal(size=(nuts.CHAINS, nuts.DRAWS, 3))
    slow = np.cumsum(rng.normal(size=(nuts.CHAINS, nuts.DRAWS)), axis=1)
    assert nuts.effective({"good": good}) > 2000 > 100 > nuts.effective({"good": good, "slow": slow})
