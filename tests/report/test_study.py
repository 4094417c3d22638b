"""The report of any analysis."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from bmtl.report import study

TABLE = pd.DataFrame({
    "who": ["b", "<a>"], "n": [3, 12], "share": [0.25, np.nan], "sure": [True, False],
})


@pytest.fixture
def sections() -> list[study.Section]:
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1])
    return [
        study.Section("A table", "What it says.", TABLE, "Two rows."),
        study.Section("A picture", picture=figure, alternative="A line from 0 to 1, rising.", note="Read upwards."),
    ]


def test_page(sections: list[study.Section], tmp_path: Path) -> None:
    study.write(
        tmp_path / "a.html", "Is it so?", ["It is.", "By far."], sections, warnings=["Beware."], settings={"seed": "3"}
    )
    text = (tmp_path / "a.html").read_text("utf-8")
    assert "<h1>Is it so?</h1>" in text and '<p class="verdict">It is.</p>' in text
    # Warnings first, settings last.
    order = [text.index(own) for own in ("Beware.", "It is.", "A table", "Read upwards.", "<dt>seed</dt>", "<dt>numpy")]
    assert order == sorted(order)
    assert 'alt="A line from 0 to 1, rising."' in text and not re.search(r"https?:|url\(|@import", text)
    assert set(re.findall(r'href="#([^"]*)"', text)) <= set(re.findall(r'id="([^"]*)"', text))


def test_cells(sections: list[study.Section]) -> None:
    text = study.render("Is it so?", ["It is."], sections)
    (body,) = re.findall(r"<tbody>(.*?)</tbody>", text, re.DOTALL)
    cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", body)
    assert cells == ["b", "3", "0.250", "yes", "&lt;a&gt;", "12", "–", "no"]
    assert re.findall(r'data-value="([^"]*)"', body) == ["3", "0.25", "12", "nan"]
    assert 'role="alert"' not in text


def test_pictures_and_tables_need_words() -> None:
    with pytest.raises(ValueError, match="alternative"):
        study.Section("A picture", picture=Figure())
    with pytest.raises(ValueError, match="caption"):
        study.Section("A table", table=TABLE)
