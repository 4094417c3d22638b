"""The picture of an arrangement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.patches import FancyBboxPatch, Patch

from bmtl.arrangement import Arrangement
from bmtl.report.style import COLOURS, FAINT, INK, WIDTH, ink_on, label, title


def size(arrangement: Arrangement) -> tuple[float, float]:
    """Inches that the picture needs."""
    return WIDTH, 1.6 + 0.5 * len(arrangement.names)


def draw(fig: FigureBase, found: Arrangement, heading: str = "Arrangement", notes: Sequence[str] = ()) -> None:
    """Draw inputs, trunks, heads and tasks from left to right on an empty figure, and notes below."""
    ax = fig.subplots()
    title(fig, heading)
    y = boxes(ax, found)
    words = {"merge": "merged: one head", "weight": "weighted: one trunk", "decouple": "decoupled: own trunk"}
    fig.legend(
        handles=[Patch(color=COLOURS[key], label=text) for key, text in words.items()],
        loc="outside lower center", ncols=3, handlelength=1, columnspacing=1.2,
    )
    signs = ["−  follows its head with the sign flipped"] if found.flipped else []
    for note in [*signs, *notes]:
        ax.text(50, y - 0.25, note, ha="center", va="center", fontsize=8, color=FAINT)
        y += 0.4
    ax.set_xlim(-0.5, 100.5)
    ax.set_ylim(y - 0.45, -0.6)


def boxes(ax: Axes, found: Arrangement) -> float:
    """Draw an arrangement between 0 and 100 across, a unit a task downwards; where it ends is what is returned."""
    ax.set_axis_off()
    # Across: the middles and half-widths of the four columns. Down: one row a task.
    (x_in, h_in), (x_trunk, h_trunk), (x_head, h_head), (x_task, h_task) = (7, 7), (29, 8), (51, 8), (82, 18)
    y, number = 0.0, 0
    middles = []
    for i, trunk in enumerate(found.trunks):
        tasks_here = sum(map(len, trunk))
        verdict = "decouple" if tasks_here == 1 else "merge" if len(trunk) == 1 else "weight"
        y_trunk = y + (tasks_here - 1) / 2
        middles.append((y_trunk, COLOURS[verdict]))
        _box(ax, x_trunk, y_trunk, h_trunk, f"trunk {i + 1}", COLOURS[verdict])
        for head in trunk:
            number += 1
            y_head = y + (len(head) - 1) / 2
            colour = COLOURS["merge"] if len(head) > 1 else COLOURS[verdict]
            _box(ax, x_head, y_head, h_head, f"head {number}", colour)
            _line(ax, x_trunk + h_trunk, y_trunk, x_head - h_head, y_head, COLOURS[verdict])
            for name in head:
                _line(ax, x_head + h_head, y_head, x_task - h_task, y, colour)
                _box(ax, x_task, y, h_task, label(name, 23), colour, light=True)
                if len(head) > 1:
                    sign = "−" if name in found.flipped else "+"
                    ax.text(
                        x_task - h_task - 1.6, y, sign, ha="center", va="center", fontsize=9, fontweight="bold",
                        color=colour, bbox={"boxstyle": "circle,pad=0.12", "facecolor": "white", "edgecolor": colour},
                    )
                y += 1
        y += 0.15
    y_in = (middles[0][0] + middles[-1][0]) / 2
    for y_trunk, colour in middles:
        _line(ax, x_in + h_in, y_in, x_trunk - h_trunk, y_trunk, colour)
    _box(ax, x_in, y_in, h_in, "inputs", FAINT, light=True)
    return y


def _box(ax: Axes, x: float, y: float, half: float, text: str, colour: str, light: bool = False) -> None:
    face, ink = ("white", INK) if light else (colour, ink_on(colour))
    ax.add_patch(
        FancyBboxPatch(
            (x - half, y - 0.36), 2 * half, 0.72, boxstyle="round,pad=0,rounding_size=0.12", mutation_aspect=0.1,
            facecolor=face, edgecolor=colour, linewidth=1.3, zorder=3,
        )
    )
    ax.text(x, y, text, ha="center", va="center", fontsize=8.5, color=ink, zorder=4, linespacing=1.05)


def _line(ax: Axes, x0: float, y0: float, x1: float, y1: float, colour: str) -> None:
    t = np.linspace(0, 1, 30)
    ax.plot(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t * t * (3 - 2 * t), color=colour, linewidth=1.3, zorder=2)
