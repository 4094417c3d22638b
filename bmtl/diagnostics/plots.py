"""Pictures of diagnostics, as matplotlib figures that belong to nobody's global state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from bmtl.diagnostics.uniformity import bands
from bmtl.report.style import COLOURS, INK, STYLE, title

if TYPE_CHECKING:
    from bmtl.diagnostics.sbc import Calibration

SHOWN = 3
"""Quantities that are named: those farthest from uniform."""


def ecdf(calibration: Calibration) -> Figure:
    """Empirical distribution functions of the ranks less that of uniform numbers.

    Parameters
    ----------
    calibration : Calibration

    Returns
    -------
    Figure
        One line a quantity, those with the smallest p-values named. The band holds all lines of a right posterior
        with a probability of at least 99%.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(4.8, 3.2), layout="constrained", facecolor="white")
        ax = fig.subplots()
        title(fig, "Ranks of the true values against uniform")
        points, low, high = bands(calibration.simulations, 1.0 - 0.01 / len(calibration.names))
        ax.fill_between(points, low - points, high - points, color="#e6e6e6", linewidth=0)
        worst = np.argsort(calibration.p_values)[:SHOWN]
        colours = dict(zip(worst, (COLOURS[name] for name in ("decouple", "merge", "weight")), strict=False))
        for q in reversed([*worst, *(q for q in range(len(calibration.names)) if q not in worst)]):
            counts = np.searchsorted(np.sort(calibration.ranks[:, q]), points, side="right")
            style = {"color": colours[q], "label": calibration.names[q]} if q in colours else {"color": "#999999"}
            ax.plot(points, counts / calibration.simulations - points, linewidth=1.4 if q in colours else 0.7, **style)
        ax.axhline(0, color=INK, linewidth=0.9)
        ax.set_xlim(0, 1)
        ax.set_xlabel("normalised rank of the true value")
        ax.set_ylabel("ECDF − uniform")
        handles, labels = ax.get_legend_handles_labels()
        fig.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=SHOWN)
    return fig
