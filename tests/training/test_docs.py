"""docs/training.md: its code runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bmtl.PowerPosteriorWarning")
def test_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        exec(block, names)
    printed = capsys.readouterr().out
    for name in ("bmtl.Trained", "bmtl.Restarts", "bmtl.Capacity", "power posterior", "the gradients of clean"):
        assert name in printed
