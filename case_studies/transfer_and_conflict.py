"""Transfer and conflict: sharing a trunk made it worse. Why, and does that mean that tasks should not share?

Four questions that people who train networks on several tasks ask, put to problems whose answer is known:

* *Is the trunk too small?* Two tasks, networks of six units each, on a trunk of eight and of thirty-two units: what
  looks like harm is a shortage (`bmtl.diagnostics.capacity`). Widen before you decouple.
* *Was it the seed?* Two tasks of one unit each on a trunk of one unit: runs that differ in their seed tie on average,
  and are good at different tasks (`restarts`).
* *Do conflicting gradients say whether to share?* Two tasks whose heads have a cosine of .9, on a narrow trunk, from 60
  rows and from 240: gradients conflict as much (`conflict`), and sharing helps with few rows and hurts with many.
* *What does?* Held-out losses where training losses are equal tell what sharing does to generalisation from what it
  does to optimisation (`trajectory`): Mueller, Dredze & Andrews, "Can optimization trajectories explain multi-task
  transfer?", TMLR 2024, who find that conflict does not explain transfer. Here as there.

Numbers are means over runs, with standard errors over runs or held-out cells. In full, conflict and transfer are
compared on 24 pairs of tasks of known relation, rows and width.

    python case_studies/transfer_and_conflict.py [--quick] [--report out/transfer_and_conflict.html]
"""

from __future__ import annotations

import argparse
import itertools
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

import bmtl
from bmtl.diagnostics import Capacity, Restarts, capacity, conflict, restarts, trajectory
from bmtl.report import study
from bmtl.training.held_out import split
from bmtl.trunks import MLP

ADAM = partial(torch.optim.Adam, lr=0.02)
COSINES, ROWS, WIDTHS = (None, 0.0, 0.5, 0.9), (60, 240, 960), (4, 32)
UNITS, INPUTS, NOISE, EPOCHS, RUNS, TEST = 8, 5, 0.3, 300, 3, 500
SAME = ((0.9, 60, 4), (0.9, 240, 4))
"""Cosine, rows and width of two problems that differ in their rows only."""


def two_networks(seed: int, rows: int = 1500) -> bmtl.Tasks:
    """Two tasks, each a network of six tanh units of its own in the same six inputs; noise is a tenth of its spread."""
    rng = np.random.default_rng([seed, 12])
    units, inputs = 6, 6
    X = rng.normal(size=(rows, inputs))
    hidden = np.tanh(X @ rng.normal(0.0, 1.5 / np.sqrt(inputs), (2, inputs, units)) + rng.normal(size=(2, 1, units)))
    f = np.einsum("tnk,tk->nt", hidden, rng.choice([-1.0, 1.0], (2, units)))
    f = (f - f.mean(axis=0)) / f.std(axis=0)
    return bmtl.Tasks.from_arrays(X, f + 0.1 * rng.normal(size=f.shape), ["gaussian"] * 2, names=["first", "second"])


def two_directions(rows: int = 600) -> bmtl.Tasks:
    """Two unrelated tasks, tanh of one direction each: a trunk of one unit can follow one of them only."""
    rng = np.random.default_rng(13)
    X = rng.normal(size=(rows, 4))
    f = np.tanh(2.0 * X[:, :2])
    return bmtl.Tasks.from_arrays(X, f + 0.3 * rng.normal(size=f.shape), ["gaussian"] * 2, names=["first", "second"])


def known_pair(cosine: float | None, rows: int, seed: int) -> bmtl.Tasks:
    """Two tasks on the same eight tanh units, with heads of that cosine, or (None) on units of their own.

    Noise has .3 of the functions' spread. Rows to train on, and 500 to test.
    """
    rng = np.random.default_rng([seed, 14])
    n = rows + TEST
    X = rng.normal(size=(n, INPUTS))
    w = rng.normal(0.0, 1.5 / np.sqrt(INPUTS), (2, INPUTS, UNITS))
    phi = np.tanh(X @ w + rng.normal(size=(2, 1, UNITS)))
    phi = (phi - phi.mean(axis=1, keepdims=True)) / phi.std(axis=1, keepdims=True)
    a, b = np.linalg.qr(rng.normal(size=(UNITS, 2)))[0].T
    other = b if cosine is None else cosine * a + np.sqrt(1 - cosine**2) * b
    f = np.column_stack([phi[0] @ a, phi[1 if cosine is None else 0] @ other])
    f /= f.std(axis=0)
    return bmtl.Tasks.from_arrays(X, f + NOISE * rng.normal(size=f.shape), ["gaussian"] * 2)


def measure(cosine: float | None, rows: int, width: int, seed: int) -> list[dict[str, Any]]:
    """How much conflict there is, and what sharing does, a record a task; harm is shared less single loss.

    ``train`` and ``test`` are of the last epoch, ``best`` of each run's best one, with its standard error over runs;
    ``equal`` and ``lowest`` at equal training loss, mean over ten losses and at the lowest.
    """
    tasks = known_pair(cosine, rows, seed)
    options: dict[str, Any] = {"epochs": EPOCHS, "runs": RUNS, "optimiser": ADAM, "device": "cpu"}
    share = TEST / tasks.n_rows
    found = trajectory(MLP((width,)), tasks, held_out=share, seed=seed, every=EPOCHS, **options)
    train, _ = split(tasks, share, seed)
    gradients = conflict(MLP((width,)), train, seed=seed, every=10, **options)
    pull = float(gradients.summary()["cosine"].iloc[0])
    gaps = found.gaps().groupby("task", sort=False)["transfer"].agg(["mean", "last"])
    return [
        {"cosine": cosine, "rows": rows, "width": width, "seed": seed, "task": name, "conflict": -pull,
         "train": _harm(found.train, t, np.take, -1)[0], "test": _harm(found.held, t, np.take, -1)[0],
         **dict(zip(("best", "se"), _harm(found.held, t, np.min), strict=True)),
         "equal": -float(gaps.loc[name, "mean"]) if name in gaps.index else None,
         "lowest": -float(gaps.loc[name, "last"]) if name in gaps.index else None}
        for t, name in enumerate(tasks.names)
    ]


def _harm(losses: dict[str, np.ndarray], t: int, read: Any, *which: Any) -> tuple[float, float]:
    """Shared less single loss, mean over runs, at one epoch of each run, and its standard error."""
    shared, single = (read(losses[arm][..., t], *which, axis=0) for arm in ("shared", "single"))
    return float(shared.mean() - single.mean()), float(np.sqrt((shared.var(ddof=1) + single.var(ddof=1)) / len(shared)))


def conflicts(quick: bool) -> pd.DataFrame:
    """Records of `measure`: of the two problems that differ in rows only, or of all."""
    problems = SAME if quick else tuple(itertools.product(COSINES, ROWS, WIDTHS))
    return pd.DataFrame([own for cosine, rows, width in problems for own in measure(cosine, rows, width, 0)])


def main() -> tuple[Capacity, Restarts, pd.DataFrame]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--quick", action="store_true", help="two widths and runs, ten seeds, and two pairs of tasks instead of 24"
    )
    parser.add_argument("--report", type=Path, default=Path("out/transfer_and_conflict.html"))
    arguments = parser.parse_args()
    start, quick = time.perf_counter(), arguments.quick
    room = capacity(
        MLP((8,)), two_networks(0), widths=(8, 32) if quick else (8, 16, 32, 64), runs=2 if quick else 3,
        epochs=600 if quick else 1000, optimiser=ADAM, device="cpu",
    )
    seeds = restarts(
        MLP((1,)), two_directions(), runs=10 if quick else 20, epochs=500, optimiser=ADAM, device="cpu"
    )
    pulls = conflicts(quick)

    gaps, trap = room.table(), seeds.pairs()
    narrow, wide = (gaps[gaps["width"] == width] for width in (gaps["width"].min(), gaps["width"].max()))
    small = (
        f"Is the trunk too small? On {room.widths[0]} units sharing costs {-narrow['gap'].mean():.2f} nats a held-out "
        f"cell (± {narrow['se'].max():.2f}), on {room.widths[-1]} it gains {wide['gap'].mean():.2f} "
        f"(± {wide['se'].max():.2f}): widen to {room.width} before decoupling."
    )
    seed = (
        f"Was it the seed? {trap['tied'].mean():.0%} of the pairs of runs tie on average, {trap['trap'].mean():.0%} "
        "although each run is clearly the better one of a task."
    )
    same = pulls.set_index(["cosine", "rows", "width"])
    few, many = (same.loc[own] for own in SAME)
    opposed = (
        f"Do conflicting gradients say whether to share? A pair with a mean cosine of {-few['conflict'].mean():.2f} "
        f"predicts better if shared ({few['best'].mean():+.3f} in held-out loss, 60 rows); with four times as many and "
        f"a cosine of {-many['conflict'].mean():.2f} it predicts worse ({many['best'].mean():+.3f})."
    )
    lines = [small, seed, opposed]
    if not quick:
        known = pulls.dropna(subset=["equal"])
        related = {key: spearmanr(known["conflict"], known[key]).statistic for key in ("train", "best")}
        lines.append(
            f"Over {len(known)} tasks conflict goes with harm to the training loss (rank correlation "
            f"{related['train']:.2f}) more than with harm to the best held-out loss ({related['best']:.2f})."
        )
    print(*lines, sep="\n", end="\n\n")
    shown = pulls[["cosine", "rows", "width", "task", "conflict", "train", "best", "se", "lowest"]]
    print(gaps.round(3).to_string(index=False), shown.round(3).to_string(index=False), sep="\n\n")
    arguments.report.parent.mkdir(parents=True, exist_ok=True)
    study.write(
        arguments.report, "Sharing made it worse: does that mean not to share?",
        ["Not before the trunk is wide enough and the seeds are many; and conflict does not decide it.", *lines],
        [
            study.Section(
                "Is the trunk too small?", small, gaps, "Mean log predictive density of held-out cells, on a shared "
                "trunk and on one each.", room.plot(), f"Gap of sharing over widths. {small}",
            ),
            study.Section(
                "Was it the seed?", seed, seeds.misleading(), "How often two runs differ beyond test noise, and the "
                "spread of their scores.", seeds.plot(), f"A line a run over the two tasks. {seed}",
            ),
            study.Section(
                "Do conflicting gradients say whether to share?", opposed, shown, "Conflict is minus the mean cosine; "
                "harm is shared less single loss, of training, at the best epoch on held-out rows (with its standard "
                "error), and on held-out rows at the lowest training loss of both.",
            ),
        ],
    )
    print(f"Report: {arguments.report} ({time.perf_counter() - start:.0f} s)")
    return room, seeds, pulls


if __name__ == "__main__":
    main()
