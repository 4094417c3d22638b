"""Pictures of an advice, as matplotlib figures that belong to nobody's global state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from bmtl.arrangement import Arrangement
from bmtl.report import diagram
from bmtl.report.style import COLOURS, FAINT, INK, WIDTH, ink_on, label, make, minus, rows, title

if TYPE_CHECKING:
    from bmtl.advice import Advice
    from bmtl.results import Fit

ARRANGEMENTS = {"weighted": (COLOURS["weight"], "o"), "merged": (COLOURS["merge"], "s"), "recommended": ("black", "D")}
"""Colour and marker of each arrangement in pictures of predictive densities."""

MAX_PAIRS = 24
"""Pairs shown by `probabilities`."""


def arrangement(advice: Advice) -> Figure:
    """Which tasks share a trunk and which share a head.

    Parameters
    ----------
    advice : Advice

    Returns
    -------
    Figure
        Inputs, trunks, heads and tasks from left to right. Tasks under one head are merged; a sign on the line to a
        task says how it follows its head.
    """
    return make(_draw_arrangement, diagram.size(advice.arrangement), advice)


def elpd(advice: Advice) -> Figure:
    """Each task's predictive density against a model of its own.

    Parameters
    ----------
    advice : Advice

    Returns
    -------
    Figure
        Differences of ELPD to decoupled, nats per observation, ± 2 standard errors, for every task weighted, merged
        and as recommended. Differences far off the scale of the others are arrows with their number.
    """
    return make(_draw_elpd, _rows_size(advice.tasks), advice)


def correlation(advice: Advice) -> Figure:
    """Heat map of the correlations of the tasks' functions, with the verdicts' initials.

    Parameters
    ----------
    advice : Advice

    Returns
    -------
    Figure
        Tasks in the order of the arrangement; its trunks are framed.
    """
    return make(_draw_correlation, _correlation_size(len(advice.tasks)), advice)


def relations(table: pd.DataFrame, found: Arrangement) -> Figure:
    """Heat map of the correlations of the tasks' functions in a fit.

    Parameters
    ----------
    table : DataFrame
        As of `bmtl.Fit.relations`.
    found : Arrangement
        Of the fit; its trunks are framed.

    Returns
    -------
    Figure
    """
    return make(_draw_heat, _correlation_size(len(found.names)), found, table)


def noise(advice: Advice) -> Figure:
    """Each task's noise and weight with their intervals, in the order of the arrangement.

    Parameters
    ----------
    advice : Advice

    Returns
    -------
    Figure
        As of `weights`.
    """
    return weights(_in_order(advice))


def weights(table: pd.DataFrame) -> Figure:
    """Each task's noise and weight with their intervals.

    Parameters
    ----------
    table : DataFrame
        Columns task, family, and noise and weight with their intervals, as of `bmtl.Fit.weights`.

    Returns
    -------
    Figure
        On log scales. The panel of noise is left out if no family has any, and has no mark for those without.
    """
    return make(_draw_weights, _rows_size(table), table)


def probabilities(advice: Advice) -> Figure:
    """Probabilities of merge, weight and decouple of every pair.

    Parameters
    ----------
    advice : Advice

    Returns
    -------
    Figure
        The pairs least likely to be decoupled first, at most `MAX_PAIRS` of them.
    """
    shown = min(len(advice.pairs), MAX_PAIRS)
    return make(_draw_probabilities, (WIDTH, 1.3 + 0.38 * max(shown, 2)), advice)


def traced(fit: Fit) -> bool:
    """Whether there is a course of the optimisation to show."""
    return fit.draws.trace is not None and bool(np.isfinite(fit.draws.trace).any())


def trace(fit: Fit) -> Figure:
    """Course of the optimisation.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    Figure
        −ELBO of every restart by chunk of steps, from where the worst of the start is over.

    Raises
    ------
    ValueError
        If the fit was sampled, not optimised, or its steps were spent before the ELBO was that of the posterior.
    """
    if not traced(fit):
        raise ValueError("only a fit by SVI or MAP that went beyond its warm-up has a trace of its ELBO")
    return make(_draw_trace, (WIDTH, 2.8), fit)


def overview(advice: Advice) -> Figure:
    """The arrangement, the gains, the correlations and the weights in one figure.

    Parameters
    ----------
    advice : Advice

    Returns
    -------
    Figure
    """
    drawn = [[_draw_arrangement, _draw_elpd], [_draw_correlation, _draw_noise]]
    size = _rows_size(advice.tasks)
    sizes = [[diagram.size(advice.arrangement), size], [_correlation_size(len(advice.tasks)), size]]
    widths = [max(row[j][0] for row in sizes) for j in range(2)]
    heights = [max(size[1] for size in row) for row in sizes]

    def draw(fig: Figure, advice: Advice) -> None:
        parts = fig.subfigures(2, 2, width_ratios=widths, height_ratios=heights, wspace=0.04, hspace=0.04)
        for i, row in enumerate(drawn):
            for j, part in enumerate(row):
                part(parts[i, j], advice)

    return make(draw, (sum(widths), sum(heights)), advice)


def _rows_size(table: pd.DataFrame) -> tuple[float, float]:
    return WIDTH, 1.5 + 0.5 * max(len(table), 2)


def _in_order(advice: Advice) -> pd.DataFrame:
    return advice.tasks.set_index("task").loc[list(advice.arrangement.names)].reset_index()


def _correlation_size(n_tasks: int) -> tuple[float, float]:
    side = 0.42 * max(n_tasks, 3)
    return max(2.4 + side, WIDTH), 2.0 + side


def _label_rows(ax: Axes, names: list[str]) -> None:
    """One horizontal row a task, the first on top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    for y in range(1, len(names)):
        ax.axhline(y - 0.5, color="#eeeeee", linewidth=0.8, zorder=0)


def _draw_arrangement(fig: FigureBase, advice: Advice) -> None:
    undecided = advice.pairs[advice.pairs["verdict"] == "undecided"]
    notes = [f"{len(undecided)} of {len(advice.pairs)} pairs are undecided"] if len(undecided) else []
    if 0 < len(undecided) <= 3:
        names = undecided[["task_a", "task_b"]].to_numpy()
        notes = [f"undecided: {label(a, 28, 1)} – {label(b, 28, 1)}" for a, b in names]
    heading = "Best-supported arrangement (undecided)" if advice.verdict == "undecided" else "Arrangement"
    diagram.draw(fig, advice.arrangement, heading, notes)


def _draw_elpd(fig: FigureBase, advice: Advice) -> None:
    order = list(advice.arrangement.names)
    table = advice.differences
    per_cell = pd.DataFrame({
        "arrangement": table["arrangement"], "at": [order.index(name) for name in table["task"]],
        "value": table["difference"] / table["n"], "half": 2 * table["se"] / table["n"],
    })
    per_cell = per_cell[np.isfinite(per_cell["value"])].fillna({"half": 0.0})
    limit = _limit(per_cell)
    ax = fig.subplots()
    title(fig, "Gain over a model of its own")
    ax.axvline(0, color=INK, linewidth=0.9, zorder=1)
    ax.annotate(
        "decoupled", (0, 1), (0, 2), xycoords=("data", "axes fraction"), textcoords="offset points",
        ha="center", va="bottom", fontsize=8, color=FAINT,
    )
    for k, (name, (colour, marker)) in enumerate(ARRANGEMENTS.items()):
        for row in rows(per_cell[per_cell["arrangement"] == name]):
            _point(ax, row.value, row.at + 0.25 * (k - 1), row.half, limit, colour, marker)
    ax.set_xlim(-1.08 * limit, 1.08 * limit)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    # Ordinary spaces in a row would become one in an SVG.
    ax.set_xlabel(f"ELPD difference, nats per observation (± 2 se)\n← worse{chr(0xA0) * 8}better →")
    _label_rows(ax, [label(name) for name in order])
    handles = [Line2D([], [], color=c, marker=m, markersize=4.5, label=n) for n, (c, m) in ARRANGEMENTS.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=3)


def _limit(points: pd.DataFrame) -> float:
    """Half-width of the scale: what is usual among the arrangements one would choose, not the largest of all."""
    reach = np.abs(points["value"]) + points["half"]
    usual = reach[(points["arrangement"] != "merged") & (reach > 0)]
    largest = float(reach.max()) if len(reach) else 0.0
    return min(largest, 5 * float(usual.median()) if len(usual) else largest) or 1.0


def _point(ax: Axes, x: float, y: float, half: float, limit: float, colour: str, marker: str) -> None:
    if abs(x) <= limit:
        ax.errorbar(x, y, xerr=half, fmt=marker, color=colour, markersize=4.5, capsize=2)
        return
    side = np.sign(x)
    ax.plot(side * 1.04 * limit, y, marker="<" if side < 0 else ">", color=colour, markersize=5.5, clip_on=False)
    ax.annotate(
        minus(f"{float(f'{x:.2g}'):+g}"), (side * 1.04 * limit, y), (-side * 5, 0), textcoords="offset points",
        fontsize=7.5, color=INK, ha="right" if side > 0 else "left", va="center_baseline",
    )


def _draw_correlation(fig: FigureBase, advice: Advice) -> None:
    _draw_heat(fig, advice.arrangement, advice.pairs, "M merge · W weight · D decouple · U undecided · ")


def _draw_heat(fig: FigureBase, found: Arrangement, pairs: pd.DataFrame, legend: str = "") -> None:
    """Correlations of pairs, with the initials of their verdicts where they have any."""
    order = list(found.names)
    n = len(order)
    values = np.full((n, n), np.nan)
    letters = np.full((n, n), "", dtype=object)
    for row in rows(pairs):
        i, j = order.index(row.task_a), order.index(row.task_b)
        values[i, j] = values[j, i] = row.correlation
        letters[i, j] = letters[j, i] = f"{row.verdict[0].upper()}\n" if legend else ""
    ax = fig.subplots()
    title(fig, "Correlation of the tasks’ functions")
    ax.set_facecolor("#f2f2f2")
    image = ax.imshow(np.ma.masked_invalid(values), cmap="RdBu_r", vmin=-1, vmax=1)
    for i in range(n):
        for j in range(n):
            if i != j:
                known = np.isfinite(values[i, j])
                number = minus(f"{values[i, j]:.2f}") if known and n <= 14 else ""
                ink = ink_on(image.to_rgba(values[i, j])[:3]) if known else INK
                text = (letters[i, j] + number).rstrip()
                ax.text(j, i, text, ha="center", va="center", fontsize=7.5, color=ink)
    start = 0
    for trunk in found.trunks:
        side = sum(map(len, trunk))
        ax.add_patch(
            Rectangle((start - 0.5, start - 0.5), side, side, fill=False, edgecolor=INK, linewidth=1.8, clip_on=False)
        )
        start += side
    names = [label(name, 20) for name in order]
    ax.set_yticks(range(n), names)
    ax.set_xticks(range(n), names, rotation=50, ha="right", rotation_mode="anchor", linespacing=0.95)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    bar = fig.colorbar(image, ax=ax, shrink=0.7, aspect=25, ticks=[-1, -0.5, 0, 0.5, 1])
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.set_yticklabels(["−1", "−0.5", "0", "0.5", "1"])
    fig.supxlabel(f"{legend}frame: one trunk", fontsize=8, color=FAINT, x=0.5, ha="center")


def _draw_noise(fig: FigureBase, advice: Advice) -> None:
    _draw_weights(fig, _in_order(advice))


def _draw_weights(fig: FigureBase, table: pd.DataFrame) -> None:
    panels = {"noise": "noise (own units)", "weight": "weight (information\nper observation)"}
    if not np.isfinite(table["noise"]).any():
        del panels["noise"]
    axes = fig.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (column, words) in zip(axes, panels.items(), strict=True):
        middle, low, high = (table[column + end].to_numpy(float) for end in ("", "_low", "_high"))
        at = np.flatnonzero((low > 0) & np.isfinite(high))
        ax.set_xscale("log")
        if len(at):
            ax.hlines(at, low[at], high[at], color="#9a9a9a", linewidth=5)
            ax.plot(middle[at], at, "|", color=INK, markersize=10, markeredgewidth=1.8)
            _log_ticks(ax, low[at].min(), high[at].max())
        ax.grid(axis="x", linewidth=0.7)
        ax.set_xlabel(words)
        ax.tick_params(axis="y", length=0)
        if column == "noise":
            for y in np.flatnonzero(~np.isfinite(middle)):
                ax.annotate(
                    "none", (0.5, y), xycoords=("axes fraction", "data"), ha="center", va="center",
                    fontsize=8, color=FAINT, fontstyle="italic",
                )
    families = [str(name).replace("_", " ") for name in table["family"]]
    _label_rows(axes[0], [f"{label(name)}\n({family})" for name, family in zip(table["task"], families, strict=True)])
    title(fig, "Noise and weight, mean and interval" if len(panels) == 2 else "Weight, mean and interval")


def _log_ticks(ax: Axes, low: float, high: float) -> None:
    """At least a factor of ten, ticks as plain numbers, and few of them."""
    decades = max(np.log10(high / low), 0.8)
    widen = 10 ** (0.56 * decades)
    middle = (low * high) ** 0.5
    ax.set_xlim(middle / widen, middle * widen)
    powers = 10.0 ** np.arange(np.floor(np.log10(middle / widen)), np.ceil(np.log10(middle * widen)) + 1)
    ticks = np.multiply.outer(powers, [1, 2, 5] if decades < 1.6 else [1]).ravel()
    ticks = ticks[(ticks >= middle / widen) & (ticks <= middle * widen)]
    ax.xaxis.set_major_locator(FixedLocator(ticks[:: -(-len(ticks) // 4)].tolist()))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _draw_probabilities(fig: FigureBase, advice: Advice) -> None:
    table = advice.pairs.sort_values("p_decouple", kind="stable")[:MAX_PAIRS]
    ax = fig.subplots()
    left_out = len(advice.pairs) - len(table)
    title(fig, "Probabilities of each pair" + (f"\n(the {left_out} most decoupled left out)" if left_out else ""))
    start = np.zeros(len(table))
    for verdict in ("merge", "weight", "decouple"):
        width = table[f"p_{verdict}"].to_numpy(float)
        ax.barh(range(len(table)), width, left=start, color=COLOURS[verdict], height=0.72)
        for y in (int(at) for at in np.flatnonzero(width >= 0.12)):
            text = f"{100 * width[y]:.0f} %"
            x = start[y] + width[y] / 2
            ax.text(x, y, text, ha="center", va="center_baseline", fontsize=7.5, color=ink_on(COLOURS[verdict]))
        start = start + width
    for y, verdict in enumerate(table["verdict"]):
        slant = "italic" if verdict == "undecided" else "normal"
        ax.text(1.02, y, verdict, va="center_baseline", fontsize=8, fontstyle=slant)
    names = [f"{label(a, 26, 1)}\n{label(b, 26, 1)}" for a, b in zip(table["task_a"], table["task_b"], strict=True)]
    _label_rows(ax, names)
    ax.tick_params(axis="y", labelsize=7.5)
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    handles = [Patch(color=COLOURS[verdict], label=verdict) for verdict in ("merge", "weight", "decouple")]
    fig.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=1)


def _draw_trace(fig: FigureBase, fit: Fit) -> None:
    runs = np.atleast_2d(np.asarray(fit.draws.trace, dtype=float))
    last = np.array([run[np.isfinite(run)][-1] if np.isfinite(run).any() else np.inf for run in runs])
    best = int(np.argmin(last))
    ax = fig.subplots()
    title(fig, "Course of the optimisation")
    for i, run in enumerate(runs):
        style = {"color": INK, "linewidth": 1.6, "zorder": 3} if i == best else {"color": COLOURS["undecided"]}
        ax.plot(np.arange(1, len(run) + 1), run, **style)
    # The first steps fall so far that nothing else would be seen.
    late = runs[:, min(runs.shape[1] // 10, runs.shape[1] - 1) :]
    low, high = np.nanmin(runs), np.nanmax(late)
    if high > low:
        ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    ax.grid(linewidth=0.7)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("chunk of steps")
    ax.set_ylabel("−ELBO, nats")
    handles = [Line2D([], [], color=INK, label="best restart"), Line2D([], [], color="#999999", label="other restarts")]
    ax.legend(handles=handles[: min(len(runs), 2)], loc="upper right")
