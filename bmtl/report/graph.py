"""The picture of a posterior over graphs of causes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import FigureBase
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Text

from bmtl.report.style import COLOURS, FAINT, INK, WIDTH, label, title

LEAST = 0.1
"""Edges of less probability are not drawn."""

LIKELY, CERTAIN = 0.5, 0.995
"""Edges of less probability are broken lines; from which one on it is not written beside them."""

BEND, AT = 0.16, 0.4
"""How far arrows are bent, so that an edge and its reverse lie side by side, and where on them the number stands."""


def size(edges: pd.DataFrame) -> tuple[float, float]:
    """Inches that the picture needs."""
    return WIDTH, {2: 1.8, 3: 3.2}.get(len(edges), 4.4)


def draw(
    fig: FigureBase,
    edges: pd.DataFrame,
    heading: str = "Which acts on which",
    colours: Mapping[tuple[str, str], str] | None = None,
) -> None:
    """Draw tasks on a ring, arrows from causes to effects, and their probabilities.

    Parameters
    ----------
    edges : DataFrame, shape (T, T)
        Probability of an edge from row to column.
    colours : mapping of (cause, effect) to colour, optional
        Default: the same for all.
    """
    ax = fig.subplots()
    ax.set_axis_off()
    ax.set_aspect("equal")
    title(fig, heading)
    names, p = [str(name) for name in edges], edges.to_numpy(float)
    angle = np.pi / 2 - 2 * np.pi * ring(p + p.T) / len(names)
    if len(names) == 2:
        angle += np.pi / 2
    at = np.column_stack([np.cos(angle), np.sin(angle)])
    boxes = [_node(ax.text(x, y, label(name, 13), zorder=3)) for (x, y), name in zip(at, names, strict=True)]
    for i, j in zip(*np.nonzero(p >= LEAST), strict=True):
        colour = (colours or {}).get((names[i], names[j]), COLOURS["merge"])
        arrow = FancyArrowPatch(
            tuple(at[i]), tuple(at[j]), arrowstyle="-|>", connectionstyle=f"arc3,rad={BEND}", patchA=boxes[i],
            patchB=boxes[j], shrinkA=1, shrinkB=1, mutation_scale=11, color=colour, linewidth=0.6 + 1.6 * p[i, j],
            linestyle="-" if p[i, j] >= LIKELY else (0, (4, 2.5)), zorder=2,
        )
        ax.add_patch(arrow)
        if p[i, j] >= CERTAIN:
            continue
        along = at[j] - at[i]
        control = (at[i] + at[j]) / 2 + BEND * np.array([along[1], -along[0]])
        x, y = (1 - AT) ** 2 * at[i] + 2 * AT * (1 - AT) * control + AT**2 * at[j]
        ax.text(
            x, y, f"{p[i, j]:.2f}".removeprefix("0"), fontsize=7.5, color=INK, ha="center", va="center", zorder=4,
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none"},
        )
    room = 0.4 if len(names) == 2 else 0.15
    ax.set_xlim(-1.35, 1.35)
    ax.set_ylim(at[:, 1].min() - room, at[:, 1].max() + room)
    if (p < LEAST).all():
        ax.text(0, 0, f"no edge of probability {LEAST} or more", ha="center", va="center", color=FAINT)


def ring(weight: np.ndarray) -> np.ndarray:
    """Place of each task on a ring, so that tasks joined by probable edges stand close: swaps until none helps.

    Parameters
    ----------
    weight : ndarray, shape (T, T)
        Symmetric.
    """
    n = len(weight)
    place = np.arange(n)

    def length(place: np.ndarray) -> float:
        apart = np.abs(place[:, None] - place)
        return float(np.sum(weight * np.sin(np.pi * apart / n)))

    best, better = length(place), True
    while better:
        better = False
        for i in range(n):
            for j in range(i):
                other = place.copy()
                other[[i, j]] = place[[j, i]]
                found = length(other)
                if found < best - 1e-9:
                    place, best, better = other, found, True
    return place


def said(edges: pd.DataFrame, most: int = 12) -> str:
    """What the picture shows, in words."""
    p = edges.to_numpy(float)
    names = list(edges)
    likeliest = sorted(zip(*np.nonzero(p >= LEAST), strict=True), key=lambda own: -p[own])
    if not likeliest:
        return f"Graph of {len(names)} tasks: no edge has a probability of {LEAST} or more."
    each = [f"{names[i]} → {names[j]} {p[i, j]:.2f}" for i, j in likeliest[:most]]
    more = f"; and {len(likeliest) - most} less probable" if len(likeliest) > most else ""
    return f"Graph of causes with the probabilities of edges: {'; '.join(each)}{more}."


def _node(text: Text) -> object:
    """The box of a task's name."""
    text.set(fontsize=8.5, color=INK, ha="center", va="center", linespacing=1.0)
    text.set_bbox({"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": FAINT, "linewidth": 1.1})
    return text.get_bbox_patch()
