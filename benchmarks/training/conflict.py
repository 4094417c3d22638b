"""Does conflict between gradients say whether sharing helps? Pairs of tasks with a known relation, rows and width.

Both tasks read the same eight random tanh units, with heads whose cosine is known, or eight units each (*strangers*);
noise has .3 of the functions' spread. For every problem a shared trunk and one each are trained (`trajectory`), and the
gradients on the shared trunk are compared along the way (`conflict`). Asked is with what conflict (minus the mean
cosine) goes together: with what sharing does to the training loss, or to the test loss; and whether the difference of
test losses at equal training loss (mean over ten losses, or at the lowest) has the sign of that at the end, and of that
where each arm is at its best epoch.

Usage: ``python -m benchmarks.training.conflict [--repeats 3] [--out FILE.json] [--figure FILE.png]``
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from benchmarks import record
from bmtl.report.style import COLOURS, STYLE, title
from case_studies.transfer_and_conflict import COSINES, EPOCHS, ROWS, RUNS, WIDTHS, measure


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    known = [own for own in records if own["equal"] is not None]
    keys = ("conflict", "train", "test", "best", "equal", "lowest")
    value = {key: np.array([own[key] for own in known]) for key in keys}
    return {
        "problems": len(known),
        "conflict_and_train": float(spearmanr(value["conflict"], value["train"]).statistic),
        "conflict_and_test": float(spearmanr(value["conflict"], value["test"]).statistic),
        "conflict_and_best": float(spearmanr(value["conflict"], value["best"]).statistic),
        "equal_and_test": float(spearmanr(value["equal"], value["test"]).statistic),
        "equal_and_best": float(spearmanr(value["equal"], value["best"]).statistic),
        "same_sign_as_test": float(np.mean((value["equal"] > 0) == (value["test"] > 0))),
        "same_sign_as_best": float(np.mean((value["equal"] > 0) == (value["best"] > 0))),
        "lowest_and_test": float(spearmanr(value["lowest"], value["test"]).statistic),
        "lowest_and_best": float(spearmanr(value["lowest"], value["best"]).statistic),
        "lowest_same_sign_as_test": float(np.mean((value["lowest"] > 0) == (value["test"] > 0))),
        "lowest_same_sign_as_best": float(np.mean((value["lowest"] > 0) == (value["best"] > 0))),
        "train_same_sign_as_best": float(np.mean((value["train"] > 0) == (value["best"] > 0))),
    }


def draw(records: list[dict[str, Any]]) -> Figure:
    panels = [("conflict", "train", "conflict", "harm to the training loss"),
              ("conflict", "best", "conflict", "harm to the best test loss"),
              ("equal", "best", "harm at equal training loss", "harm to the best test loss")]
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8.4, 2.9), layout="constrained", facecolor="white")
        title(fig, "Sharing a trunk: conflict of gradients, and what becomes of the losses")
        for ax, (x, y, across, up) in zip(fig.subplots(1, 3), panels, strict=True):
            for width, colour in zip(WIDTHS, (COLOURS["decouple"], COLOURS["merge"]), strict=True):
                own = [one for one in records if one["width"] == width and one["equal"] is not None]
                ax.scatter([one[x] for one in own], [one[y] for one in own], s=10, color=colour, label=f"width {width}")
            ax.axhline(0, color="#999999", linewidth=0.8)
            ax.set(xlabel=across, ylabel=up)
        handles, labels = ax.get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=2)
    return fig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    records = record.read(arguments.out).get("records", [])
    done = {(own["cosine"], own["rows"], own["width"], own["seed"]) for own in records}
    for seed, cosine, rows, width in itertools.product(range(arguments.repeats), COSINES, ROWS, WIDTHS):
        if (cosine, rows, width, seed) not in done:
            records += measure(cosine, rows, width, seed)
            record.write(arguments.out, runs=RUNS, epochs=EPOCHS, records=records)
    record.write(arguments.out, runs=RUNS, epochs=EPOCHS, summary=summary(records), records=records)
    for key, value in summary(records).items():
        print(f"{key:26}{value:8.3g}")
    if arguments.figure:
        draw(records).savefig(arguments.figure, dpi=110)


if __name__ == "__main__":
    main()
