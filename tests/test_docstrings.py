"""The examples in docstrings run and give what they show."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROMPT = ">>> "
LONG = re.compile(r">>> .*(bmtl\.(fit|train)\(|\.fit\()")
"""What takes more than some seconds."""


def sources() -> dict[str, str]:
    """The text of each module that has an example, by its import name."""
    files = {path: path.relative_to(ROOT) for path in (ROOT / "bmtl").rglob("*.py") if "models" not in path.parts}
    files |= {path: Path("bmtl") / path.relative_to(ROOT) for path in (ROOT / "models").rglob("*.py")}
    texts = {".".join(own.with_suffix("").parts): path.read_text("utf-8") for path, own in files.items()}
    return {name: text for name, text in sorted(texts.items()) if PROMPT in text}


@pytest.mark.parametrize(
    "name",
    [pytest.param(own, marks=pytest.mark.slow if LONG.search(text) else ()) for own, text in sources().items()],
)
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    found = [own for own in doctest.DocTestFinder().find(module) if own.examples]
    runner = doctest.DocTestRunner()
    for own in found:
        runner.run(own)
    assert found and runner.failures == 0
