"""Work done apart: the same results in the same order, whoever does it and whoever is done first."""

from __future__ import annotations

import os
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from bmtl.errors import FitError
from bmtl.fitting.workers import spread

INSIDE: list[int] = []


def square(value: int) -> int:
    if value < 0:
        raise ValueError(f"{value} is negative")
    return value**2


def crowd(value: int) -> int:
    INSIDE.append(value)
    time.sleep(0.02)
    return len([INSIDE.pop()]) + len(INSIDE)


def die(value: int) -> None:
    os._exit(value)


def test_results_come_in_order_and_are_reported_as_they_are_done(backwards: Executor) -> None:
    seen: list[tuple[int, int]] = []
    calls = [(value,) for value in range(5)]
    assert spread(square, calls, backwards, lambda place, value: seen.append((place, value))) == [0, 1, 4, 9, 16]
    assert [place for place, _ in seen] == [4, 3, 2, 1, 0]
    assert all(value == place**2 for place, value in seen)
    assert spread(square, calls, None) == [0, 1, 4, 9, 16]
    assert spread(square, [], backwards) == []


def test_an_error_of_a_call_is_raised_and_what_has_not_begun_is_dropped() -> None:
    begun: list[int] = []

    def negative(value: int) -> None:
        begun.append(value)
        time.sleep(0.02)
        square(value)

    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match="-1 is negative"):
        spread(negative, [(-1,), *[(0,)] * 100], executor)
    assert len(begun) < 100


def test_threads_take_turns() -> None:
    with ThreadPoolExecutor(4) as executor:
        assert spread(crowd, [(value,) for value in range(8)], executor) == [1] * 8


@pytest.mark.slow
def test_a_pool_that_lost_a_worker_is_named() -> None:
    with (
        ProcessPoolExecutor(1, get_context("spawn")) as executor,
        pytest.raises(FitError, match="a worker of the executor died"),
    ):
        spread(die, [(3,)], executor)
