"""Numbers and arrangements in words."""

from __future__ import annotations

import math

import pytest

from bmtl.arrangement import Arrangement
from bmtl.report import words
from bmtl.report.style import COLOURS, ink_on, label, minus


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1.2345, "1.23"), (-0.012345, "−0.0123"), (123.4, "123"), (12345.6, "12346"),
        (1.5e-7, "1.50 × 10⁻⁷"), (-2.5e9, "−2.50 × 10⁹"), (math.nan, "–"), (math.inf, "–"),
        (0.9997, "1.00"), (9.999, "10.0"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("value", "se", "text"),
    [
        (12.345, 1.26, "12.3 ± 1.3"), (-1234.5, 23.4, "−1234 ± 23"), (0.01234, 0.00056, "0.01234 ± 0.00056"),
        (3.0, math.nan, "3.00"), (0.0, 0.0, "0"), (math.nan, 1.0, "–"),
    ],
)
def test_with_se(value: float, se: float, text: str) -> None:
    assert words.with_se(value, se) == text


def test_signed() -> None:
    assert words.with_se(12.345, 1.26, signed=True) == "+12.3 ± 1.3"


@pytest.mark.parametrize(
    ("p", "text"), [(0.0, "< 1 %"), (0.004, "< 1 %"), (0.5, "50 %"), (0.999, "> 99 %"), (math.nan, "–")]
)
def test_percent(p: float, text: str) -> None:
    assert words.percent(p) == text


@pytest.mark.parametrize(("seconds", "text"), [(41.3, "41.3 s"), (187.4, "3 min"), (9000.0, "2.5 h")])
def test_duration(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_correlation() -> None:
    assert [words.correlation(r) for r in (-0.123, 0.001, -0.001, math.nan)] == ["−0.12", "0.00", "0.00", "–"]


def test_interval() -> None:
    assert words.interval(1.0, 0.5, 2.0) == "1.00 (0.500 to 2.00)"
    assert words.interval(math.nan, math.nan, math.nan) == "–"


def test_in_words() -> None:
    found = Arrangement(((("a", "b"), ("c",)), (("d", "e", "f"),), (("g",),), (("h",),)), frozenset({"b"}))
    assert words.in_words(found) == [
        "One trunk: “a” and “b” as one function (“b” with the sign flipped); “c” with a head of its own.",
        "One trunk: “d”, “e” and “f” as one function.",
        "Each on its own: “g” and “h”.",
    ]


def test_label() -> None:
    assert label("short") == "short"
    assert label("price in $ or $") == r"price in \$ or \$"
    long = label("one two three four five six seven eight nine ten eleven (permuted)", 22, 2)
    assert long.startswith("one two") and long.endswith("(permuted)")
    assert len(long.split("\n")) == 2 and max(map(len, long.split("\n"))) <= 22
    assert len(label("x" * 200, 10, 1)) <= 10


def test_minus() -> None:
    assert [minus("-1.2"), minus("-0.00"), minus("3")] == ["−1.2", "0.00", "3"]


def test_ink_is_readable() -> None:
    assert ink_on("white") != ink_on("black") == "white"
    assert ink_on(COLOURS["merge"]) == "white"
