"""What pictures and pages have in common: colours, ink, sizes, and how names and numbers are set."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, FigureBase

COLOURS = {"merge": "#0072B2", "weight": "#009E73", "decouple": "#D55E00", "undecided": "#999999"}
"""Colour of each verdict, from the palette of Okabe and Ito."""

INK, FAINT = "#222222", "#6b6b6b"
STYLE: dict[str, Any] = {
    "font.family": "sans-serif", "font.size": 9.0, "font.weight": "normal", "text.color": INK, "text.usetex": False,
    "axes.labelsize": 9.0, "figure.titlesize": 10.5, "figure.titleweight": "bold",
    "axes.facecolor": "white", "axes.edgecolor": FAINT, "axes.labelcolor": INK, "axes.grid": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.unicode_minus": True,
    "xtick.labelsize": 8.5, "ytick.labelsize": 8.5, "xtick.color": INK, "ytick.color": INK, "grid.color": "#dddddd",
    "legend.frameon": False, "legend.fontsize": 8.5, "lines.linewidth": 1.4, "hatch.linewidth": 0.6,
}
"""What a user's own style must not change: the figures are laid out for these sizes and a white ground."""

WIDTH = 4.8
"""Inches; no wider, so that a picture can be read on a telephone."""


def make(draw: Callable[..., None], size: tuple[float, float], *subject: Any) -> Figure:
    """A figure of that size in inches, drawn in our style; ``draw`` takes it and the subject."""
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=size, layout="constrained", facecolor="white")
        draw(fig, *subject)
    return fig


def label(name: str, width: int = 22, lines: int = 2) -> str:
    """A name in at most that many lines of that width; a dollar is a dollar, not mathematics.

    What is too long loses its middle, for names often differ only in how they end.
    """
    for kept in range(width * lines, 1, -1):
        short = name if len(name) <= kept else f"{name[: kept - kept // 3].rstrip()}…{name[len(name) - kept // 3 :]}"
        wrapped = textwrap.wrap(short, width)
        if len(wrapped) <= lines:
            break
    return "\n".join(wrapped).replace("$", r"\$")


def minus(text: str) -> str:
    """A formatted number with the sign that is as wide as a digit."""
    return text.replace("-", "−") if float(text) else text.replace("-", "")


def ink_on(colour: Any) -> str:
    """Ink that can be read on a ground of that colour."""
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    luminance = float(np.dot(channels, [0.2126, 0.7152, 0.0722]))
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.065 else INK


def title(fig: FigureBase, text: str) -> None:
    """Head a figure, flush left: over a narrow plot a title of its axes would stand out of the figure."""
    fig.suptitle(text, x=0.01, ha="left")


def rows(table: pd.DataFrame) -> Iterable[Any]:
    """Rows as named tuples; to the types of pandas any of their values may be anything."""
    return table.itertuples()
