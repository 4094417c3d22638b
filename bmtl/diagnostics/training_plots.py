"""Pictures of the diagnostics of training, as matplotlib figures that belong to nobody's global state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from bmtl.report.style import COLOURS, FAINT, INK, STYLE, ink_on, label, title

if TYPE_CHECKING:
    from bmtl.diagnostics.branching import Branching
    from bmtl.diagnostics.capacity import Capacity
    from bmtl.diagnostics.conflict import Conflict
    from bmtl.diagnostics.drift import Drift
    from bmtl.diagnostics.restarts import Restarts
    from bmtl.diagnostics.trajectory import Trajectory

ARMS = {"shared": COLOURS["weight"], "single": COLOURS["decouple"]}

MOST_LINES = 8
"""Lines that are named in a legend, and panels of a figure."""


def _axes(heading: str, width: float = 4.8, height: float = 3.2, panels: int = 1) -> tuple[Figure, Any]:
    fig = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    title(fig, heading)
    return fig, fig.subplots(1, panels, squeeze=False)[0]


def restarts(found: Restarts) -> Figure:
    """Scores of all runs less their mean on each task, in units of their spread: a line a run."""
    with matplotlib.rc_context(STYLE):
        fig, (ax,) = _axes("Runs that differ in their seed only", 1.8 + 0.9 * max(len(found.names), 3))
        spread = found.scores.std(axis=0)
        z = (found.scores - found.scores.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        for own, front in zip(z, found.pareto, strict=True):
            style = {"color": COLOURS["merge"], "zorder": 2} if front else {"color": "#bbbbbb", "zorder": 1}
            ax.plot(own, marker="o", markersize=3, linewidth=1.0, **style)
        ax.set_xticks(range(len(found.names)), [label(name, 12) for name in found.names])
        ax.set_ylabel("held-out lpd, standard deviations\nover runs (blue: Pareto front)")
    return fig


def capacity(found: Capacity) -> Figure:
    """Gap of sharing over widths, with two standard errors."""
    with matplotlib.rc_context(STYLE):
        fig, (ax,) = _axes("One trunk for all against one each")
        tasks = list(found.table().groupby("task", sort=False))[:MOST_LINES]
        for t, (name, own) in enumerate(tasks):
            beside = 1.04 ** (t - (len(tasks) - 1) / 2)  # or error bars hide each other
            ax.errorbar(
                beside * own["width"], own["gap"], 2 * own["se"], marker="o", markersize=3, label=label(str(name)),
            )
        ax.axhline(0, color=INK, linewidth=0.9)
        ax.set_xscale("log", base=2)
        ax.set_xticks(found.widths, [str(width) for width in found.widths])
        ax.minorticks_off()
        ax.set_xlabel("width of the trunk")
        ax.set_ylabel("gain by sharing, nats a held-out cell")
        fig.legend(loc="outside lower center", ncols=2)
    return fig


def conflict(found: Conflict) -> Figure:
    """Cosine of each pair's gradients along training, mean over runs."""
    with matplotlib.rc_context(STYLE):
        fig, (ax,) = _axes("Gradients on the shared trunk")
        for (a, b), own in list(found.table().groupby(["task_a", "task_b"], sort=False))[:MOST_LINES]:
            mean = own.groupby("epoch")["cosine"].mean()
            ax.plot(mean.index, mean, label=f"{label(str(a), 12, 1)}, {label(str(b), 12, 1)}")
        ax.axhline(0, color=FAINT, linewidth=0.9)
        ax.set_ylim(-1.05, 1.05)
        ax.set_xlabel("epoch")
        ax.set_ylabel("cosine")
        fig.legend(loc="outside lower center", ncols=2)
    return fig


def trajectory(found: Trajectory) -> Figure:
    """Held-out against training loss, a panel a task, a line a run."""
    with matplotlib.rc_context(STYLE):
        panels = min(len(found.names), MOST_LINES)
        fig, axes = _axes("At equal training loss, the lower line generalises better", 2.4 * panels + 0.6, 2.8, panels)
        for t, ax in enumerate(axes):
            for arm, colour in ARMS.items():
                for run in range(found.train[arm].shape[1]):
                    name = arm if t == 0 and run == 0 else None
                    ax.plot(found.train[arm][:, run, t], found.held[arm][:, run, t], color=colour, linewidth=0.9,
                            label=name)
            ax.invert_xaxis()
            ax.set_title(label(found.names[t]), fontsize=9)
            ax.set_xlabel("training loss")
        axes[0].set_ylabel("held-out loss")
        fig.legend(loc="outside lower center", ncols=2)
    return fig


def drift(found: Drift) -> Figure:
    """What later cells lose to time in both arms, with two standard errors: a line a task, the worst on top."""
    with matplotlib.rc_context(STYLE):
        table = found.summary().head(MOST_LINES)
        fig, (ax,) = _axes("Later rows predicted from earlier ones", height=1.5 + 0.4 * len(table))
        at = np.arange(len(table))
        for (arm, colour), shift in zip(ARMS.items(), (-0.1, 0.1), strict=True):
            ax.errorbar(
                table[f"ageing_{arm}"], at + shift, xerr=2 * table[f"se_{arm}"], fmt="o", markersize=4, color=colour,
                label={"shared": "shared trunk", "single": "a trunk each"}[arm],
            )
        ax.axvline(0, color=INK, linewidth=0.9)
        ax.set_yticks(at, [label(str(name)) for name in table["task"]])
        ax.set_ylim(len(table) - 0.5, -0.5)
        ax.set_xlabel("against as many rows of any time, nats a cell")
        fig.legend(loc="outside lower center", ncols=2)
    return fig


def branching(found: Branching) -> Figure:
    """Posterior of the number of shared layers: a row a task, the best refit framed."""
    with matplotlib.rc_context(STYLE):
        table, best = found.depths(), found.shares(found.best)
        fig, (ax,) = _axes("Where tasks part", 1.8 + 0.8 * table.shape[1], 1.4 + 0.4 * len(table))
        shade = matplotlib.colors.LinearSegmentedColormap.from_list("p", ["white", COLOURS["weight"]])
        ax.imshow(table, cmap=shade, vmin=0, vmax=1, aspect="auto")
        for t, own in enumerate(table.to_numpy()):
            for depth, p in enumerate(own):
                ax.text(depth, t, f"{p:.2f}", ha="center", va="center", color=ink_on(shade(p)))
            box = (best[t] - 0.48, t - 0.45)
            ax.add_patch(matplotlib.patches.Rectangle(box, 0.96, 0.9, fill=False, edgecolor=INK, linewidth=1.4))
        ax.set_xticks(range(table.shape[1]))
        ax.set_yticks(range(len(table)), [label(str(name)) for name in table.index])
        ax.tick_params(length=0)
        ax.set_xlabel("shared layers: probability by the search\n(frame: the best refit)")
    return fig
