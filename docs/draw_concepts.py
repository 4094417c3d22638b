"""Pictures of the concepts' pages: ``python docs/draw_concepts.py`` fills docs/pictures."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

import bmtl
from bmtl.arrangement import Arrangement
from bmtl.models import SharedTrunk
from bmtl.report import graph, predictive
from bmtl.report.diagram import boxes
from bmtl.report.style import COLOURS, FAINT, STYLE

HERE = Path(__file__).parent
CALIBRATION = HERE.parent / "benchmarks" / "results" / "calibration.json"
GUIDES = {
    "nuts": "NUTS", "svi mean_field on numpyro": "mean-field", "svi low_rank on numpyro": "low-rank",
    "svi full_rank on numpyro": "full-rank", "svi flow on numpyro": "flow",
}


def save(fig: plt.Figure, name: str) -> None:
    """Write a picture, and close it."""
    fig.savefig(HERE / "pictures" / f"{name}.png", dpi=150)
    plt.close(fig)


def cells() -> None:
    """Which cells of four tasks are observed."""
    rng = np.random.default_rng(3)
    visit = rng.random(40) < 0.7
    survey = rng.random(40) < 0.4
    there = np.stack([np.ones(40, bool), np.ones(40, bool), visit, survey])
    fig, axis = plt.subplots(figsize=(9.0, 1.7), layout="constrained")
    axis.imshow(np.where(there, 1.0, np.nan), cmap=mpl.colors.ListedColormap([COLOURS["merge"]]), aspect="auto")
    axis.set_yticks(range(4), ["any visit (yes/no)", "visits (count)", "spending (number)", "satisfaction (label)"])
    axis.set_xticks(np.arange(-0.5, 40), minor=True)
    axis.set_yticks(np.arange(-0.5, 4), minor=True)
    axis.grid(which="minor", color="white", linewidth=1.5)
    axis.tick_params(which="both", length=0)
    axis.set_xticks([0, 19, 39], ["row 1", "row 20", "row 40"])
    axis.spines[:].set_visible(False)
    save(fig, "cells")


def arrangements() -> None:
    """Decoupled, shared, and a mixture."""
    names = ("a", "b", "c")
    shown = {
        "decoupled": Arrangement.decoupled(names),
        "shared": Arrangement.shared(names),
        "mixed": Arrangement(((("a", "b"),), (("c",),)), frozenset({"b"})),
    }
    fig, axes = plt.subplots(1, 3, figsize=(10.5, 2.2), layout="constrained")
    for axis, (kind, found) in zip(axes, shown.items(), strict=True):
        end = boxes(axis, found)
        axis.set_xlim(-0.5, 100.5)
        axis.set_ylim(end - 0.45, -0.6)
        axis.set_title(f"{kind}: {found}", fontsize=9)
    save(fig, "arrangements")


def noise() -> None:
    """Posteriors of two tasks' noises and weights."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 2))
    truth = np.array([1.0, 0.1])
    Y = X @ np.array([[1.0, 0.5], [0.5, -1.0]]) + truth * rng.normal(size=(100, 2))
    tasks = bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 2, names=["a", "b"])
    fit = bmtl.fit(SharedTrunk(bmtl.trunks.Identity()), tasks, method="nuts", marginal=True, seed=0, progress=False)
    fig, axes = plt.subplots(1, 2, figsize=(9.0, 2.3), layout="constrained", sharey=True)
    for name, colour, own in zip(tasks.names, ("#0072B2", "#D55E00"), truth, strict=True):
        draws = fit.noise[name].ravel()
        for axis, values, at in ((axes[0], draws, own), (axes[1], draws**-2, own**-2)):
            axis.hist(np.log10(values), bins=40, density=True, color=colour, alpha=0.7, label=f"task {name}")
            axis.axvline(np.log10(at), color=FAINT, linestyle="--")
    for axis, what in zip(axes, ("noise σ", "weight 1/σ²"), strict=True):
        axis.set_xlabel(what)
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        powers = range(int(np.floor(axis.get_xlim()[0] + 0.5)), int(np.ceil(axis.get_xlim()[1] - 0.2)) + 1)
        axis.set_xticks(list(powers), [f"{10.0**power:g}" for power in powers])
    axes[1].legend()
    save(fig, "noise")


def coverage() -> None:
    """Coverage of 89% intervals by guide, from the results of the calibration benchmark."""
    found = json.loads(CALIBRATION.read_text("utf-8"))["cases"]
    rng = np.random.default_rng(0)
    fig, axis = plt.subplots(figsize=(9.0, 2.6), layout="constrained")
    for k, label in enumerate(GUIDES):
        values = np.array([own[label]["coverage_89"] for own in found.values() if label in own])
        colour = COLOURS["merge"] if label == "nuts" else COLOURS["decouple"]
        axis.plot(k + rng.uniform(-0.15, 0.15, len(values)), values, "o", color=colour, alpha=0.6, markersize=4)
        axis.plot([k - 0.25, k + 0.25], [np.median(values)] * 2, color=colour, linewidth=2)
        axis.text(k + 0.28, np.median(values), f"{np.median(values):.2f}", va="center", color=colour)
    axis.axhline(0.89, color=FAINT, linestyle="--", linewidth=1)
    axis.set_xticks(range(len(GUIDES)), list(GUIDES.values()))
    axis.set_ylabel("share that hold the truth")
    save(fig, "coverage")


def verdicts() -> None:
    """Two tasks that are one function, that are related, and that have nothing in common."""
    rng = np.random.default_rng(4)
    x = np.linspace(-2, 2, 60)
    f, g = np.sin(1.7 * x), 0.6 * np.cos(3.1 * x) - 0.3 * x
    shown = {
        "merge: b is a with its sign flipped": (f, -f, 0.15),
        "weight: related, and b is noisier": (f, 0.8 * f + 0.5 * x**2 - 0.9, 0.45),
        "decouple: nothing in common": (f, g, 0.15),
    }
    fig, axes = plt.subplots(1, 3, figsize=(10.5, 2.4), layout="constrained", sharex=True, sharey=True)
    for axis, (name, (a, b, noise)) in zip(axes, shown.items(), strict=True):
        colour = COLOURS[name.split(":")[0]]
        for task, own, spread, ink in (("a", a, 0.15, FAINT), ("b", b, noise, colour)):
            axis.plot(x, own + spread * rng.normal(size=len(x)), ".", color=ink, alpha=0.5, markersize=4)
            axis.plot(x, own, color=ink, label=task)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("input")
        axis.legend(loc="upper left", ncols=2, handlelength=1.2)
    axes[0].set_ylabel("outcome, standardised")
    axes[0].set_ylim(-2.2, 2.6)
    save(fig, "verdicts")


def causes() -> None:
    """The posterior over graphs of the example on the page of causes."""
    page = (HERE / "causal.md").read_text("utf-8")
    names: dict[str, Any] = {}
    exec(re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0], names)
    fig = plt.figure(figsize=(4.8, 3.6), layout="constrained")
    graph.draw(fig, names["posterior"].edges)
    save(fig, "causes")


def predictions() -> None:
    """Checks of the predictions of a count, by a likelihood that fits and by one that does not."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(300, 1))
    Y = rng.poisson(np.exp(1 + 0.5 * X) * rng.gamma(1.5, 1 / 1.5, X.shape))
    fig = plt.figure(figsize=(9.0, 2.5), layout="constrained")
    families = ("poisson", "negative_binomial")
    for part, family in zip(fig.subfigures(1, 2, wspace=0.05), families, strict=True):
        tasks = bmtl.Tasks.from_arrays(X, Y, [family], names=["visits"])
        fit = bmtl.fit(SharedTrunk(bmtl.trunks.Identity()), tasks, method="nuts", seed=0, progress=False)
        predictive.draw(part, fit, "visits", f"visits, {family.replace('_', ' ')}")
    save(fig, "predictions")


def schools() -> None:
    """Two pictures of the case study of schools."""
    study = runpy.run_path(str(HERE.parent / "case_studies" / "schools.py"))
    fit = bmtl.fit(study["MODEL"], study["exam"](), method="nuts", marginal=True, seed=0, progress=False)
    found = study["lines"](fit)
    save(study["draw_continuum"](study["continuum"](fit.tasks, found)), "continuum")
    save(study["draw_league"](study["league"](fit, found)), "league")


if __name__ == "__main__":
    with mpl.rc_context(STYLE):
        cells()
        arrangements()
        noise()
        coverage()
        verdicts()
        causes()
        predictions()
        schools()
