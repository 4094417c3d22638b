"""Engines: what runs a probabilistic program."""

from __future__ import annotations

from bmtl.engine._base import Engine

ENGINES = ("pyro", "numpyro")

__all__ = ["ENGINES", "Engine"]
