"""Versions that a result names."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("bmtl", "torch", "pyro-ppl", "jax", "numpyro", "arviz-base", "arviz-stats", "numpy")


def installed() -> dict[str, str]:
    """Package to version, Python included; packages that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
