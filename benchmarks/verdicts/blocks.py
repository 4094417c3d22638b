"""Scores of arrangements on held-out rows, a trunk at a time.

Trunks of an arrangement have nothing in common, so that its scores are those of its trunks, each fitted to its own
tasks: arrangements that share a trunk then share its score too, and a difference is never one of two runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

import bmtl
from bmtl.advice.arrange import partitions
from bmtl.arrangement import Arrangement
from bmtl.models import SharedTrunk
from bmtl.tasks import Tasks

FITS = 2
"""Fits of a trunk whose scores are averaged: a single one can be .2 nats off by the optimum that it found."""

Heads = tuple[tuple[str, ...], ...]
"""Tasks by head of one trunk."""


class Blocks:
    """Fits of single trunks to some tasks, each arrangement's scored once.

    Parameters
    ----------
    tasks, held : Tasks
        To learn from, and to be judged on.
    width : int
        Units of the trunk.
    options : mapping
        Of `bmtl.fit`.
    """

    def __init__(self, tasks: Tasks, held: Tasks, width: int, options: Mapping[str, Any]) -> None:
        self.tasks, self.held, self.width, self.options = tasks, held, width, options
        self._scores: dict[tuple[Heads, frozenset[str]], dict[str, float]] = {}

    def scores(self, heads: Heads, flipped: frozenset[str] = frozenset()) -> dict[str, float]:
        """Mean log predictive density of each task on one trunk, nats an observation."""
        key = tuple(sorted(tuple(sorted(own)) for own in heads)), flipped
        if key not in self._scores:
            names = [name for own in key[0] for name in own]
            # The same names for every block of a shape: one compiled program serves them all.
            new = {name: f"t{i}" for i, name in enumerate(names)}
            arrangement = Arrangement(
                (tuple(tuple(new[name] for name in own) for own in key[0]),), frozenset(new[name] for name in flipped)
            )
            model = SharedTrunk(bmtl.trunks.MLP((self.width,)), arrangement=arrangement)
            learn, held = (replace(own.select(names), names=tuple(new.values())) for own in (self.tasks, self.held))
            fits = [bmtl.fit(model, learn, seed=seed, progress=False, **self.options) for seed in range(FITS)]
            lpd = np.mean([fit.score(held)["lpd"] for fit in fits], axis=0)
            self._scores[key] = dict(zip(names, lpd, strict=True))
        return self._scores[key]

    def of(self, arrangement: Arrangement) -> dict[str, float]:
        """Of every task of an arrangement."""
        out: dict[str, float] = {}
        for trunk in arrangement.trunks:
            names = {name for own in trunk for name in own}
            flipped = arrangement.flipped & names
            # A head is the same with all of its tasks flipped: the first one is not.
            for own in trunk:
                if sorted(own)[0] in flipped:
                    flipped = flipped ^ frozenset(own)
            out |= self.scores(trunk, flipped)
        return out

    def together(self, names: frozenset[str]) -> dict[str, float]:
        """Of some tasks on one trunk, a head each."""
        return self.scores(tuple((name,) for name in sorted(names)))

    def mean(self, scores: Mapping[str, float]) -> float:
        """Over all observations that are held out."""
        cells = dict(zip(self.held.names, (len(rows) for rows in self.held.rows), strict=True))
        return float(sum(scores[name] * cells[name] for name in cells) / sum(cells.values()))


def split(tasks: Tasks, seed: int) -> tuple[Tasks, Tasks]:
    """Four fifths of each task's cells to learn from, and the others."""
    rng = np.random.default_rng(seed)
    masks = [rng.permutation(len(rows)) % 5 > 0 for rows in tasks.rows]
    return tasks.keep_cells(masks), tasks.keep_cells([~mask for mask in masks])


def groupings(names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], ...]]:
    """Every way of putting names into groups."""
    for own in partitions(len(names)):
        yield tuple(
            tuple(name for name, label in zip(names, own, strict=True) if label == group)
            for group in range(max(own) + 1)
        )
