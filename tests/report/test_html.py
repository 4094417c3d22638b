"""The page: its structure, its safety, and how it is written."""

from __future__ import annotations

import base64
import os
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bmtl.arrangement import Arrangement
from bmtl.findings import Finding
from bmtl.report import html, words

VOID = {"meta", "link", "img", "br"}
HOSTILE = '<img src=x onerror="alert(1)">&amp; "quoted" \'{{ 7 * 7 }}\' $x_1$ </script></style>'


class Page(HTMLParser):
    """What a page holds; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.text[tag][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def rename(advice: SimpleNamespace, old: str, new: str) -> SimpleNamespace:
    def swap(value: Any) -> Any:
        return new if value == old else value

    found = advice.arrangement
    trunks = tuple(tuple(tuple(map(swap, head)) for head in trunk) for trunk in found.trunks)
    return SimpleNamespace(**{
        **vars(advice),
        "arrangement": Arrangement(trunks, frozenset(map(swap, found.flipped))),
        "pairs": advice.pairs.assign(
            task_a=advice.pairs["task_a"].map(swap), task_b=advice.pairs["task_b"].map(swap),
        ),
        "tasks": advice.tasks.assign(task=advice.tasks["task"].map(swap)),
        "differences": advice.differences.assign(task=advice.differences["task"].map(swap)),
    })


def test_structure(advice: SimpleNamespace) -> None:
    page = Page(html.render(advice))
    assert page.all("html") == [{"lang": "en"}]
    assert page.text["title"] == [f"{advice.question} – Mixed: some tasks belong together, others do not"]
    assert page.text["h1"] == [advice.question]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels))
    assert len(page.all("table")) == len(page.text["caption"]) == 4
    assert all(cell.get("scope") in ("row", "col") for cell in page.all("th"))
    assert len(page.all("tr")) == (1 + 3) + (1 + 21) + (1 + 7) + (1 + 3)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {link["href"] for link in page.all("a")} <= {f"#{name}" for name in ids}


def test_the_answer_comes_first(advice: SimpleNamespace) -> None:
    (head,) = Page(html.render(advice)).text["header"]
    assert "Probability of this kind of arrangement: 72 %" in head and advice.reason in head
    assert "“systolic blood pressure” with the sign flipped" in head
    assert "On its own: “hospital nights (permuted)”." in head
    assert "converge" not in head


def test_every_task_has_its_part(advice: SimpleNamespace) -> None:
    page = Page(html.render(advice))
    assert page.text["h3"] == advice.tasks["task"].tolist()
    for own, (_, row) in zip(page.text["article"], advice.tasks.iterrows(), strict=True):
        assert row["why"] in own and (row["checks"] == "ok") == ("Check:" not in own)
        for name in ("decoupled", "weighted", "merged", "recommended"):
            assert words.with_se(row[f"elpd_{name}"], row[f"se_{name}"]) in own
        gain = advice.differences.query("task == @row.task and arrangement == 'merged'").iloc[0]
        assert f"({words.with_se(gain['difference'], gain['se'], signed=True)})" in own
        assert words.interval(*row[["weight", "weight_low", "weight_high"]]) in own


def test_every_picture_says_what_it_shows(advice: SimpleNamespace) -> None:
    pictures = Page(html.render(advice)).all("img")
    assert len(pictures) == 6
    for picture in pictures:
        assert len(picture["alt"] or "") > 60 and re.search(r"\d|trunk", picture["alt"] or "")
        assert int(picture["width"] or 0) > 300


def test_no_trace_without_an_optimisation(sampled: SimpleNamespace) -> None:
    page = Page(html.render(sampled))
    assert len(page.all("img")) == 5


def test_refers_to_nothing_outside(advice: SimpleNamespace) -> None:
    text = html.render(advice)
    page = Page(text)
    for _, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert (attrs.get(name) or "#").startswith(("#", "data:"))
    assert not re.search(r"https?:|url\(|@import|//[a-z]", text)
    for picture in page.all("img"):
        drawn = base64.b64decode((picture["src"] or "").split(",")[1]).decode("utf-8")
        assert not re.search(r'(href|src)="(?!#|data:)', drawn)


def test_same_advice_same_page(advice: SimpleNamespace) -> None:
    assert html.render(advice) == html.render(advice)


@pytest.mark.parametrize("old", ["systolic blood pressure", "hospital nights (permuted)"])
def test_hostile_names(advice: SimpleNamespace, old: str) -> None:
    hostile = rename(advice, old, HOSTILE)
    hostile.warnings, hostile.reason, hostile.question = [HOSTILE], HOSTILE, HOSTILE
    text = html.render(hostile)
    page = Page(text)
    assert len(page.all("img")) == 6 and len(page.all("script")) == 1
    assert not any("onerror" in attrs for _, attrs in page.tags)
    assert page.text["h1"] == [HOSTILE]
    assert any(HOSTILE in picture["alt"] for picture in page.all("img") if picture["alt"])
    assert "7 * 7" in text


def test_banner_of_an_unconverged_fit(unconverged: SimpleNamespace) -> None:
    page = Page(html.render(unconverged))
    assert sum(attrs.get("role") == "alert" for _, attrs in page.tags) == 1
    (head,) = page.text["header"]
    assert "This advice is undecided because the fit did not converge: settled of ELBO is 60" in head
    assert unconverged.warnings[0] in head
    assert head.index("did not converge") < head.index("Probability of")
    assert "Best supported so far" in head


def test_no_banner_where_all_is_well(advice: SimpleNamespace) -> None:
    assert not any(attrs.get("role") == "alert" for _, attrs in Page(html.render(advice)).tags)


@pytest.mark.parametrize("verdict", ["merge", "weight", "decouple", "mixed", "undecided"])
def test_every_verdict_has_an_answer(advice: SimpleNamespace, verdict: str) -> None:
    advice.verdict = verdict
    assert f'<div class="answer {verdict}">' in html.render(advice)


def test_write(advice: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    html.write(advice, path)
    assert path.read_text("utf-8") == html.render(advice)
    assert os.listdir(tmp_path) == ["report.html"]


def test_failure_leaves_what_was_there(
    advice: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    path = tmp_path / "report.html"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        html.write(advice, path)
    assert path.read_text("utf-8") == "old" and os.listdir(tmp_path) == ["report.html"]


def test_failure_to_render_writes_nothing(advice: SimpleNamespace, tmp_path: Path) -> None:
    advice.verdict = "unheard of"
    with pytest.raises(KeyError):
        html.write(advice, tmp_path / "report.html")
    assert os.listdir(tmp_path) == []


def test_findings_have_a_section_where_there_are_any(advice: SimpleNamespace) -> None:
    assert 'id="findings"' not in html.render(advice)
    names = advice.tasks["task"].tolist()
    advice.findings = (Finding("conflict", (names[0], names[1]), f"They pull apart. {HOSTILE}"),)
    page = Page(html.render(advice))
    assert "findings" in [attrs.get("id") for attrs in page.all("section")]
    assert "#findings" in [attrs.get("href") for attrs in page.all("a")]
    assert f"They pull apart. {HOSTILE}" in page.text["td"]
