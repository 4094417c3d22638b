"""The README: its code runs and does what it shows, and what it names exists."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import bmtl

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


PYTHON = blocks("python")


def test_has_an_example_of_advice_and_one_of_a_fit() -> None:
    assert any("bmtl.advise" in block for block in PYTHON)
    assert any("bmtl.fit" in block for block in PYTHON)


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_names_exist(block: str) -> None:
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            assert all(hasattr(module, name.name) for name in node.names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "bmtl":
            assert node.attr in bmtl.__all__
    methods = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("fit", "again")
    }
    assert not {name for name in methods if not hasattr(bmtl.Fit, name)}


def test_dotted_names_in_the_text_exist() -> None:
    prose = re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    for owner, name in re.findall(r"`(bmtl|Tasks|fit|advice)\.(\w+)[^`]*`", prose):
        if owner == "bmtl":
            assert hasattr(bmtl, name) or importlib.import_module(f"bmtl.{name}")
            continue
        kind: type[Any] = {"Tasks": bmtl.Tasks, "fit": bmtl.Fit, "advice": bmtl.Advice}[owner]
        assert hasattr(kind, name) or name in kind.__annotations__


def test_tasks_of_the_example() -> None:
    example = next(block for block in PYTHON if "bmtl.advise" in block)
    names: dict[str, Any] = {}
    exec(example.split("advice = ")[0], names)
    tasks = names["tasks"]
    assert tasks.names == ("a", "b", "c")
    assert tasks.n_rows == 150


def test_families_and_trunks_are_the_ones_there_are() -> None:
    for family in bmtl.families.FAMILIES:
        assert f"`{family}`" in TEXT
    for trunk in set(bmtl.trunks.__all__) - {"ACTIVATIONS", "Trunk"}:
        assert f"`{trunk}`" in TEXT


def test_commands_are_in_the_makefile() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    commands = re.findall(r"\bmake ([a-z-]+) ", "\n".join(blocks("sh")))
    assert {"demo", "test"} <= set(commands) <= targets


def test_modules_run_by_name_exist() -> None:
    modules = re.findall(r"python -m (benchmarks\.\w+)", TEXT)
    assert modules
    for module in modules:
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()


def test_linked_files_exist() -> None:
    linked = [target for target in re.findall(r"\]\(([^)#\s]+)", TEXT) if "://" not in target]
    assert "docs/overview.png" in linked
    assert not [target for target in linked if not (ROOT / target).exists()]


def test_picture_is_small() -> None:
    assert (ROOT / "docs/overview.png").stat().st_size < 300_000


@pytest.mark.slow
def test_examples_run_and_give_the_verdicts_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in PYTHON:
        exec(block, names)
    verdicts = re.compile(r"^ *([abc]) +([abc]) +(merge|weight|decouple|undecided)\b", re.MULTILINE)
    printed = capsys.readouterr().out
    shown = verdicts.findall(TEXT)
    assert len(shown) == 3
    assert verdicts.findall(printed) == shown
    assert str(names["advice"].arrangement) in TEXT
    assert names["again"].tasks.names == names["tasks"].names
    assert (tmp_path / "fit.nc").is_file()
