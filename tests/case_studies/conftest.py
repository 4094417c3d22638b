"""Case studies, which are scripts: read as modules, and run."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "case_studies"


@pytest.fixture(scope="session")
def read_study() -> Callable[[str], ModuleType]:
    """A case study as a module."""

    def read(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return read


@pytest.fixture
def quick(
    read_study: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Run a case study with ``--quick``: what its ``main`` gives, once its report is there."""

    def run(name: str, *words: str) -> Any:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, "--quick", *words])
        found = read_study(name).main()
        assert (tmp_path / "out" / f"{name}.html").read_text("utf-8").startswith("<!DOCTYPE html>")
        return found

    return run
