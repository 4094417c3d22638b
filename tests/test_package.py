"""What a user gets from installing and importing the package, and what keeps its parts apart."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import entry_points, packages_distributions
from pathlib import Path

import pytest

import bmtl

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SOURCES = {"bmtl": ROOT / "bmtl", "bmtl.models": ROOT / "models"}


def packages_on_disk() -> set[str]:
    return {
        ".".join((name, *file.parent.relative_to(folder).parts))
        for name, folder in SOURCES.items()
        for file in folder.rglob("*.py")
    }


def run(code: str, folder: Path = ROOT) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_package_is_listed() -> None:
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages_on_disk()


def test_every_imported_package_is_a_dependency() -> None:
    def names(lines: list[str]) -> set[str]:
        return {re.split(r"[^\w.-]", line)[0].lower() for line in lines}

    always = names(PROJECT["project"]["dependencies"])
    extras = PROJECT["project"]["optional-dependencies"]
    only = {
        ROOT / "bmtl" / "sklearn.py": names(extras["sklearn"]),
        ROOT / "bmtl" / "stores.py": names(extras["zarr"]),
        ROOT / "bmtl" / "training" / "weightings" / "torch_jd.py": names(extras["training"]),
    }
    distributions = packages_distributions()
    for folder in SOURCES.values():
        for file in folder.rglob("*.py"):
            for module in {name.split(".")[0] for name in imports(ast.parse(file.read_text("utf-8")))}:
                if module != "bmtl" and module not in sys.stdlib_module_names:
                    owners = {name.lower() for name in distributions.get(module, [module])}
                    assert owners & (always | only.get(file, set())), f"{file} imports {module}"


def test_import_is_light() -> None:
    heavy = ["torch", "jax", "pyro", "numpyro", "matplotlib", "pandas", "arviz_base", "bmtl.models"]
    assert run(f"import bmtl, sys; print([m for m in {heavy} if m in sys.modules])").strip() == "[]"


@pytest.mark.parametrize("name", bmtl.__all__)
def test_public_name(name: str) -> None:
    assert getattr(bmtl, name) is getattr(bmtl, name)


def test_any_name_may_be_used_first() -> None:
    run(
        "import importlib, sys\n"
        f"for name in {[*bmtl.__all__, 'models']}:\n"
        "    for module in [m for m in sys.modules if m.split('.')[0] == 'bmtl']:\n"
        "        del sys.modules[module]\n"
        "    bmtl = importlib.import_module('bmtl')\n"
        "    importlib.import_module('bmtl.models') if name == 'models' else getattr(bmtl, name)\n"
    )


def test_dir_is_the_public_names() -> None:
    assert dir(bmtl) == sorted(bmtl.__all__)


def test_names_for_type_checkers_are_the_lazy_ones() -> None:
    tree = ast.parse((ROOT / "bmtl" / "__init__.py").read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    expected = {f"{module}.{name}" for name, module in bmtl._OBJECTS.items()}
    expected |= {f"bmtl.{name}" for name in bmtl._SUBMODULES}
    assert imports(block) == expected


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'bmtl' has no attribute 'nothing'"):
        _ = bmtl.nothing


def test_models_are_imported_on_their_own() -> None:
    out = run(
        "import bmtl\n"
        "try: bmtl.models\n"
        "except AttributeError as error: print(error)\n"
        "from bmtl import models\n"
        "print(bmtl.models is models)\n"
    )
    assert out.splitlines() == ["bmtl does not import the models it can fit: write `import bmtl.models` first", "True"]


def test_bmtl_never_imports_the_models() -> None:
    for file in (ROOT / "bmtl").rglob("*.py"):
        found = imports(ast.parse(file.read_text("utf-8")))
        assert not {name for name in found if name == "bmtl.models" or name.startswith("bmtl.models.")}, file


def test_entry_points_name_the_models() -> None:
    import bmtl.models

    models = {name: getattr(bmtl.models, name) for name in bmtl.models.__all__}
    assert {point.name: point.load() for point in entry_points(group="bmtl.models")} == models


def test_wheel_and_sdist_hold_every_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for folder in SOURCES.values():
        shutil.copytree(folder, source / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (*ROOT.glob("pyproject.toml"), *ROOT.glob("README.md"), *ROOT.glob("LICENSE")):
        shutil.copy(file, source)
    # The wheel is made from the unpacked sdist, so that it shows what both of them hold.
    make = "import setuptools.build_meta as backend; backend.build_{}({!r})".format
    run(make("sdist", str(tmp_path)), source)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        packed.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    run(make("wheel", str(tmp_path)), unpacked)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
    expected = {
        f"{name.replace('.', '/')}/{file.relative_to(folder).as_posix()}"
        for name, folder in SOURCES.items()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert held == expected
    assert {"bmtl/py.typed", "bmtl/models/py.typed"} <= held


@pytest.mark.parametrize(("required", "outcome"), [("0", "1 skipped"), ("1", "1 error")])
def test_gpu_mark_without_a_device(required: str, outcome: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "torch.py").write_text("class cuda:\n    is_available = staticmethod(lambda: False)\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    (tmp_path / "test_one.py").write_text("import pytest\n\n@pytest.mark.gpu\ndef test_one():\n    pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "BMTL_REQUIRE_GPU": required},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in done.stdout.splitlines()[-1]
