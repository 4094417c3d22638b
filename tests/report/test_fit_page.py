"""The page of a fit."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from bmtl.fitting import MAP, NUTS, SVI
from bmtl.models import SharedTrunk
from bmtl.noise import ByGroup
from bmtl.report import fit as page
from bmtl.report import words
from bmtl.trunks import Identity

MODEL = SharedTrunk(Identity())


@pytest.fixture(scope="module")
def fitted(made: Any, pair: Any) -> Any:
    return made(MODEL, pair, SVI(draws=100))


def rows(text: str, section: str) -> list[list[str]]:
    """Cells of the first table of a section as text, row by row."""
    (body,) = re.findall(rf'<section id="{section}".*?<tbody>(.*?)</tbody>', text, re.DOTALL)
    cells = (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in body.split("</tr>")[:-1])
    return [[unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in row] for row in cells]


def test_tables_hold_the_figures_of_the_fit(fitted: Any) -> None:
    text = page.render(fitted)
    weights, elpd = fitted.weights(), fitted.elpd()
    for row, weight, own in zip(rows(text, "tasks"), weights.itertuples(), elpd.itertuples(), strict=True):
        assert row[:3] == [weight.task, "gaussian", "40"]
        assert row[3] == words.interval(weight.noise, weight.noise_low, weight.noise_high)
        assert row[5] == words.with_se(own.elpd, own.se)
        assert row[8] == ("yes" if own.trusted else "no")
    matters = fitted.inputs()["p_matters"]
    assert [row[3] for row in rows(text, "inputs")] == [words.percent(p) for p in matters]
    assert [row[1] for row in rows(text, "relations")] == [words.correlation(fitted.relations()["correlation"][0])]
    assert rows(text, "convergence")[0][0] == "settled"


def test_same_fit_same_page_that_needs_nothing_else(fitted: Any, tmp_path: Path) -> None:
    text = page.render(fitted)
    fitted.report(tmp_path / "fit.html")
    assert (tmp_path / "fit.html").read_text("utf-8") == text
    assert not re.search(r"https?:|url\(|@import", text)
    pictures = re.findall(r'<img src="data:[^"]*" alt="([^"]*)"', text)
    assert len(pictures) == text.count("<img") == 6 and all(len(said) > 40 for said in pictures)
    assert set(re.findall(r'href="#([^"]*)"', text)) <= set(re.findall(r'id="([^"]*)"', text))


def test_a_fit_that_did_not_converge_says_so_first(fitted: Any) -> None:
    assert fitted.problems
    (head,) = re.findall(r"<header.*?</header>", page.render(fitted), re.DOTALL)
    assert "Do not rely on this fit" in head and "All needed" not in head


def test_without_draws_there_is_no_elpd_and_without_a_pair_no_relation(made: Any, pair: Any) -> None:
    text = page.render(made(MODEL, pair.select(["u"]), MAP()))
    assert "A fit of “u”" in text and 'href="#relations"' not in text
    assert [len(row) for row in rows(text, "tasks")] == [5]


def test_labels_groups_and_chains(made: Any, seven: Any, pair: Any) -> None:
    sampled = page.render(made(MODEL, seven, NUTS(chains=2, draws=60)))
    assert {row[0] for row in rows(sampled, "inputs")} >= {"colour [red]", "grade"}
    grouped = pair.with_noise_groups(["left"] * 25 + ["right"] * 15)
    text = page.render(made(SharedTrunk(Identity(), noise=ByGroup()), grouped, SVI(draws=100)))
    assert [row[0:3:2] for row in rows(text, "tasks")] == [
        ["u · left", "25"], ["u · right", "15"], ["v · left", "25"], ["v · right", "15"]
    ]
