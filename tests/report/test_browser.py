"""The page in a browser, as narrow as a telephone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from bmtl.fitting import SVI
from bmtl.models import SharedTrunk
from bmtl.report import fit, graph, html, study
from bmtl.report.style import make
from bmtl.trunks import Identity

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--dump-dom",
]
LISTEN = """<script>
window.problems = [];
window.addEventListener("error", (event) => problems.push(event.message || "not loaded: " + event.target.src), true);
document.addEventListener("securitypolicyviolation", (event) => problems.push("refused: " + event.blockedURI));
console.error = console.warn = (...words) => problems.push(words.join(" "));
</script>"""
MEASURE = """<script>
addEventListener("load", () => {
  const button = document.querySelector("#SECTION th:nth-child(COLUMN) button");
  const cells = document.querySelectorAll.bind(document, "#SECTION tbody td:nth-child(COLUMN)");
  const column = () => [...cells()].map((td) => +td.dataset.value);
  button.click();
  const down = column(), first = button.parentElement.getAttribute("aria-sort");
  button.click();
  const up = column(), second = button.parentElement.getAttribute("aria-sort");
  const found = document.createElement("pre");
  found.id = "found";
  found.textContent = JSON.stringify({
    width: document.documentElement.scrollWidth, window: innerWidth, problems, down, up, aria: [first, second],
    buttons: document.querySelectorAll("th button").length,
    unseen: [...document.images].filter((image) => !image.complete || !image.naturalWidth).length,
  });
  parent.document.body.append(found);
});
</script>"""


def open_page(page: str, folder: Path, section: str = "pairs", column: int = 4) -> dict[str, Any]:
    """What is found in a page, and in a table of numbers after sorting it down and up by a column."""
    measure = MEASURE.replace("#SECTION", f"#{section}").replace("COLUMN", str(column))
    page = page.replace("<title>", LISTEN + "<title>", 1).replace("</body>", measure + "</body>")
    # In a frame, because a window of Chromium is at least 500 pixels wide.
    file = folder / "frame.html"
    file.write_text(f'<!DOCTYPE html><body><iframe width="390" height="844" srcdoc="{escape(page)}"></iframe>', "utf-8")
    done = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", file.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )
    match = re.search(r'<pre id="found">([^<]*)</pre>', done.stdout, re.DOTALL)
    assert match, done.stderr
    return json.loads(unescape(match[1]))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to open the page with")
@pytest.mark.parametrize("which", ["advice", "unconverged"])
def test_page_on_a_telephone(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    advice: SimpleNamespace = request.getfixturevalue(which)
    advice.reason += " " + "x" * 200  # a word that no line can hold
    found = open_page(html.render(advice), tmp_path)
    assert found["problems"] == [] and found["unseen"] == 0
    assert found["window"] <= 390 and found["width"] <= found["window"]
    assert found["buttons"] == 20
    assert found["aria"] == ["descending", "ascending"]
    assert found["down"] == sorted(found["down"], reverse=True) and found["up"] == sorted(found["down"])


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to open the page with")
def test_page_of_a_study_on_a_telephone(tmp_path: Path) -> None:
    edges = pd.DataFrame([[0, 0.6], [0.4, 0]], index=["a", "b"], columns=["a", "b"])
    table = pd.DataFrame({"who": list("uvw"), "x": [2.0, 3.0, 1.0]} | {f"column {k}": 0.1 for k in range(20)})
    picture = make(graph.draw, graph.size(edges), edges)
    sections = [study.Section("Findings", "Text.", table, "A wide table.", picture, graph.said(edges))]
    found = open_page(study.render("Is it " + "x" * 200 + "?", ["It is."], sections), tmp_path, "part-1", 2)
    assert found["problems"] == [] and found["unseen"] == 0
    assert found["window"] <= 390 and found["width"] <= found["window"]
    assert found["down"] == [3, 2, 1] and found["up"] == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to open the page with")
def test_page_of_a_fit_on_a_telephone(made: Any, five: Any, tmp_path: Path) -> None:
    found = open_page(fit.render(made(SharedTrunk(Identity()), five, SVI(draws=50))), tmp_path, "relations", 2)
    assert found["problems"] == [] and found["unseen"] == 0
    assert found["window"] <= 390 and found["width"] <= found["window"]
    assert found["aria"] == ["descending", "ascending"]
    assert found["down"] == sorted(found["down"], reverse=True) and found["up"] == sorted(found["down"])
