"""Pictures of how a fit's predictions compare with the outcomes, task by task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from bmtl.diagnostics.pit import calibrated, loo_pit
from bmtl.diagnostics.uniformity import bands
from bmtl.report import words
from bmtl.report.style import COLOURS, INK, WIDTH, label, make, minus, title
from bmtl.trees import variables

if TYPE_CHECKING:
    from bmtl.results import Fit

OF = "checks of "
"""How the picture of a task is called."""

MOST_TASKS = 16
"""Tasks that have a picture, the first ones."""

MOST_VALUES, BINS, CODE = 12, 20, 10
"""Discrete outcomes of up to so many values have a bar each; bins of all others; letters of a label."""

DOUBTED = 0.01
"""p-value of uniformity from which predictions are said not to be calibrated."""


def pictures(fit: Fit) -> dict[str, tuple[Figure, str]]:
    """For each task the LOO-PIT, and outcomes beside replicates; with what they show. None for a MAP fit."""
    if fit.method == "map":
        return {}
    pits = loo_pit(fit)
    found = {row["task"]: row for _, row in calibrated(pits).iterrows()}
    drawn = {}
    for name in fit.explained.names[:MOST_TASKS]:
        compared = shares(fit, name)
        pit = pits.loc[pits["task"] == name, "pit"].to_numpy()
        drawn[OF + name] = (
            make(_draw, (WIDTH, 2.5), label(name, 50, 1), pit, *compared),
            said(name, found.get(name), *compared[1:]),
        )
    return drawn


def draw(fig: FigureBase, fit: Fit, name: str, heading: str) -> None:
    """Draw the LOO-PIT of a task, and its outcomes beside replicates, on an empty figure."""
    pits = loo_pit(fit)
    _draw(fig, heading, pits.loc[pits["task"] == name, "pit"].to_numpy(), *shares(fit, name))


def shares(fit: Fit, name: str) -> tuple[list[str] | np.ndarray, np.ndarray, np.ndarray]:
    """Shares of the outcomes and of each replicated data set, by value or by bin.

    Returns
    -------
    list of str, or array of shape (bins + 1,)
        Values, or edges of bins.
    array, shape (bins,)
    array, shape (draws, bins)
    """
    tasks = fit.explained
    t = tasks.index(name)
    y = tasks.y[t]
    new = fit.data["posterior_predictive"][variables(tasks.names)[t]].to_numpy().reshape(-1, len(y))
    family = tasks.families[t]
    at: list[str] | np.ndarray
    whole = np.arange(y.min(), y.max() + 1) if np.all(y == np.round(y)) else np.empty(0)
    if family.labels or (np.all(new == np.round(new)) and 0 < len(whole) <= MOST_VALUES):
        values = np.arange(len(family.labels)) if family.labels else whole
        at = [str(own)[:CODE] for own in family.labels] if family.labels else [f"{value:g}" for value in values]
        edges = np.append(values - 0.5, values[-1] + 0.5)
    else:
        low, high = np.quantile(y, [0.005, 0.995])
        low, high = (low, high) if low < high else (y.min(), y.max())
        edges = np.linspace(low, high, BINS + 1)
        if np.all(new == np.round(new)):
            step = max(1.0, np.ceil((high - low) / BINS))
            edges = np.arange(np.floor(low), high + step, step) - 0.5
        at = edges
    place = np.stack([np.searchsorted(edges, own, side="right") - 1 for own in (y, *new)])
    bins = len(edges) - 1
    counts = np.stack([np.bincount(own[(own >= 0) & (own < bins)], minlength=bins) for own in place])
    return at, counts[0] / len(y), counts[1:] / len(y)


def said(name: str, found: pd.Series | None, observed: np.ndarray, replicated: np.ndarray) -> str:
    """What a picture shows, in words."""
    low, high = np.quantile(replicated, [0.005, 0.995], axis=0)
    outside = int(np.sum((observed < low) | (observed > high)))
    parts = [f"Predictions of {name}."]
    if found is not None and np.isfinite(found["p"]):
        verdict = "not uniform" if found["p"] < DOUBTED else "uniform as far as can be told"
        parts.append(f"LOO-PIT of {found['n']} cells is {verdict} (p = {words.number(found['p'], 2)}).")
        if not found["trusted"]:
            parts.append("Importance sampling failed for some of them.")
    parts.append(f"Of {len(observed)} shares of outcomes {outside} lie outside 99 % of those of replicated data.")
    return " ".join(parts)


def _draw(
    fig: FigureBase, heading: str, pit: np.ndarray, at: list[str] | np.ndarray, observed: np.ndarray, new: np.ndarray
) -> None:
    title(fig, heading)
    if len(pit) > 1:
        left, right = fig.subplots(1, 2)
        _draw_pit(left, pit)
    else:
        right = fig.subplots()
    _draw_shares(right, at, observed, new)


def _draw_pit(ax: Axes, pit: np.ndarray) -> None:
    points, lower, upper = bands(len(pit))
    own = np.searchsorted(np.sort(pit), points, side="right") / len(pit)
    ax.fill_between(points, lower - points, upper - points, color="#e4e4e4", linewidth=0)
    ax.axhline(0, color="#9a9a9a", linewidth=0.8)
    ax.step(points, own - points, where="mid", color=COLOURS["merge"])
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    ax.yaxis.set_major_formatter(lambda value, _: minus(f"{value:g}"))
    ax.locator_params(axis="y", nbins=5)
    ax.set_xlabel("LOO-PIT")
    ax.set_ylabel("share below, less uniform")


def _draw_shares(ax: Axes, at: list[str] | np.ndarray, observed: np.ndarray, new: np.ndarray) -> None:
    low, middle, high = np.quantile(new, [0.055, 0.5, 0.945], axis=0)
    if isinstance(at, list):
        place = np.arange(len(at))
        ax.bar(place, observed, color="#d3e2ec", width=0.8)
        ax.errorbar(place, middle, [middle - low, high - middle], fmt="o", color=INK, markersize=3, capsize=2)
        ax.set_xticks(place, at, rotation=35 if max(map(len, at)) > 3 else 0)
    else:
        ax.stairs(high, at, baseline=low, fill=True, color="#d9d9d9")
        ax.stairs(middle, at, baseline=None, color="#8a8a8a", linewidth=1.0)
        ax.stairs(observed, at, color=COLOURS["merge"], linewidth=1.5)
        ax.locator_params(axis="x", nbins=4)
    ax.set_xlabel("data (blue) and replicates")
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
