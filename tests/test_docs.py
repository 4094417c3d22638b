"""The README and the pages of the site: their code runs and prints what they show, and what they name exists."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bmtl

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LONG = re.compile(r"bmtl\.(fit|advise|causal)\b|\.extend\(")
"""What takes more than some seconds."""

NUMBER = re.compile(r"[-+−]?\d[\d,]*(?:\.\d+)?")


def text(page: Path) -> str:
    return page.read_text("utf-8")


def fences(page: Path) -> list[tuple[str, str]]:
    """Language and text of each block."""
    return FENCE.findall(text(page))


def python(page: Path) -> list[str]:
    return [own for language, own in fences(page) if language == "python"]


def title(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


WITH_CODE = [page for page in (README, *PAGES) if python(page)]


def test_the_readme_has_an_example_of_advice_and_one_of_a_fit() -> None:
    assert any("bmtl.advise" in block for block in python(README))
    assert any("bmtl.fit" in block for block in python(README))


@pytest.mark.parametrize("page", WITH_CODE, ids=title)
def test_names_exist(page: Path) -> None:
    tree = ast.parse("\n".join(python(page)))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            assert all(hasattr(module, name.name) for name in node.names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "bmtl":
                assert node.attr in bmtl.__all__
            if node.value.id in ("fit", "again"):
                assert hasattr(bmtl.Fit, node.attr) or node.attr in bmtl.Fit.__annotations__


@pytest.mark.parametrize("page", [README, *PAGES], ids=title)
def test_dotted_names_in_the_text_exist(page: Path) -> None:
    prose = FENCE.sub("", text(page))
    kinds: dict[str, type[Any]] = {"Tasks": bmtl.Tasks, "fit": bmtl.Fit, "advice": bmtl.Advice}
    for owner, name in re.findall(r"`(bmtl|Tasks|fit|advice)\.(\w+)[^`]*`", prose):
        if owner == "bmtl":
            assert hasattr(bmtl, name) or importlib.import_module(f"bmtl.{name}")
        else:
            assert hasattr(kinds[owner], name) or name in kinds[owner].__annotations__


@pytest.mark.parametrize("page", [README, *PAGES], ids=title)
def test_linked_files_exist(page: Path) -> None:
    linked = [target for target in re.findall(r"\]\(([^)#\s]+)", text(page)) if "://" not in target]
    assert not [target for target in linked if not (page.parent / target).exists()]


@pytest.mark.filterwarnings("ignore::bmtl.PowerPosteriorWarning")
@pytest.mark.parametrize(
    "page",
    [pytest.param(own, marks=pytest.mark.slow if LONG.search("\n".join(python(own))) else (), id=title(own))
     for own in WITH_CODE if own != README],
)
def test_pages_print_what_they_show(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "case_studies").symlink_to(ROOT / "case_studies")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    after = [*fences(page)[1:], ("", "")]
    for (language, block), (follows, shown) in zip(fences(page), after, strict=True):
        if language == "python":
            exec(block, names)
            printed = capsys.readouterr().out
            if follows == "text":
                assert_same(printed, shown)
            if follows == "output":  # of fits, whose numbers differ between machines
                assert words(printed) == words(shown)


def words(of: str) -> list[str]:
    """What is printed, numbers aside."""
    return NUMBER.sub("#", of).split()


def assert_same(printed: str, shown: str) -> None:
    """The same words, and numbers that differ by no more than Monte Carlo error on another machine does."""
    assert words(printed) == words(shown)
    numbers = [
        [float(own.replace(",", "").replace("−", "-")) for own in NUMBER.findall(own)] for own in (printed, shown)
    ]
    np.testing.assert_allclose(*numbers, rtol=0.1, atol=0.05)


def test_a_difference_of_words_or_numbers_is_seen() -> None:
    assert_same("a  1.00 -0.80\n", "a 1.02 -0.79")
    for other in ("a 1.00", "b 1.00 -0.80", "a 1.00 0.80", "a 1.30 -0.80"):
        with pytest.raises(AssertionError):
            assert_same("a 1.00 -0.80", other)


def test_tasks_of_the_example() -> None:
    example = next(block for block in python(README) if "bmtl.advise" in block)
    names: dict[str, Any] = {}
    exec(example.split("advice = ")[0], names)
    tasks = names["tasks"]
    assert tasks.names == ("a", "b", "c")
    assert tasks.n_rows == 150


def test_families_and_parts_are_the_ones_there_are() -> None:
    families = text(ROOT / "docs/concepts/tasks.md")
    for family in bmtl.families.FAMILIES:
        assert f"`{family}`" in families
    parts = text(ROOT / "docs/models/index.md")
    for trunk in set(bmtl.trunks.__all__) - {"ACTIVATIONS", "Trunk"}:
        assert f"`{trunk}`" in parts
    for relation in set(bmtl.relations.__all__) - {"Gaussian", "Heads", "Relation"}:
        assert f"[{relation}]" in parts
    for model in importlib.import_module("bmtl.models").__all__:
        assert f"[{model}]" in parts


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"[\w/-]+\.md$", text(ROOT / "mkdocs.yml"), re.MULTILINE)
    assert sorted(listed) == [page.relative_to(ROOT / "docs").as_posix() for page in PAGES]


def test_commands_are_in_the_makefile() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    shell = "\n".join(own for language, own in fences(README) if language == "sh")
    assert {"demo", "test"} <= set(re.findall(r"\bmake ([a-z-]+) ", shell)) <= targets


def test_modules_run_by_name_exist() -> None:
    modules = {
        own for page in (README, *PAGES, ROOT / "benchmarks/README.md")
        for own in re.findall(r"python -m (benchmarks[.\w]+\w)", text(page))
    }
    assert modules
    for module in modules:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def test_picture_is_small() -> None:
    assert (ROOT / "docs/overview.png").stat().st_size < 300_000


@pytest.mark.slow
def test_examples_of_the_readme_run_and_give_the_verdicts_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in python(README):
        exec(block, names)
    verdicts = re.compile(r"^ *([abc]) +([abc]) +(merge|weight|decouple|undecided)\b", re.MULTILINE)
    printed = capsys.readouterr().out
    shown = verdicts.findall(text(README))
    assert len(shown) == 3
    assert verdicts.findall(printed) == shown
    assert str(names["advice"].arrangement) in text(README)
    assert names["again"].tasks.names == names["tasks"].names
    assert (tmp_path / "fit.nc").is_file()
