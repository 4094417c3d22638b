"""Time and memory against size: rows, groups and tasks, each fit in a process of its own.

Problems: 20 tasks of Gaussian, yes/no and count outcomes on a tanh trunk, 30% of the cells absent, by minibatch SVI,
over rows; groups of 3 rows with exchangeable heads, over groups; clustered heads on 200 rows, over tasks. Beside them
the time in which ``import bmtl`` is done in a fresh interpreter, the median of seven.

Usage: ``python -m benchmarks.scale [--only rows groups tasks] [--largest N] [--out FILE.json] [--figure FILE.png]``
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record

SIZES = {
    "rows": (10_000, 100_000, 1_000_000),
    "groups": (100, 1_000, 10_000),
    "tasks": (25, 50, 100, 200),
}
SVI = {
    "rows": {"max_steps": 2000, "batch_size": 1024, "draws": 50},
    "groups": {"max_steps": 2000, "batch_size": 256, "draws": 50},
    "tasks": {"max_steps": 2000, "batch_size": 256, "draws": 50},
}


def of_rows(n: int) -> Any:
    import bmtl

    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 8))
    f = np.tanh(X @ rng.normal(size=(8, 6))) @ rng.normal(size=(6, 20)) / 2
    families = [("gaussian", "bernoulli", "poisson")[t % 3] for t in range(20)]
    Y = np.empty((n, 20))
    for t, family in enumerate(families):
        if family == "gaussian":
            Y[:, t] = f[:, t] + rng.normal(size=n)
        elif family == "bernoulli":
            Y[:, t] = rng.random(n) < 1 / (1 + np.exp(-f[:, t]))
        else:
            Y[:, t] = rng.poisson(np.exp(f[:, t] / 2))
        Y[rng.random(n) < 0.3, t] = np.nan
    return bmtl.Tasks.from_arrays(X, Y, families)


def of_groups(n: int) -> Any:
    import pandas as pd

    import bmtl

    rng = np.random.default_rng(0)
    group, x = np.repeat(np.arange(n), 3), rng.normal(size=(3 * n, 2))
    y = x @ [1.0, -0.5] + rng.normal(size=n)[group] + 0.5 * rng.normal(size=3 * n)
    frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": y, "group": [f"g{own}" for own in group]})
    return bmtl.Tasks.from_groups(frame, ["a", "b"], "y", "group", "gaussian")


def of_tasks(n: int) -> Any:
    import bmtl

    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4))
    heads = rng.normal(size=(4, 4))[:, rng.integers(0, 4, n)]
    return bmtl.Tasks.from_arrays(X, X @ heads + 0.5 * rng.normal(size=(200, n)), ["gaussian"] * n)


def measure(problem: str, size: int) -> dict[str, float]:
    """Seconds of one fit, of reading LOO from it, and GiB at the peak of the process. To be run in one of its own."""
    import bmtl
    from bmtl.models import SharedTrunk
    from bmtl.noise import Common
    from bmtl.relations import Clustered, Exchangeable
    from bmtl.trunks import MLP, Identity

    make, model = {
        "rows": (of_rows, SharedTrunk(MLP((16,)))),
        "groups": (of_groups, SharedTrunk(Identity(), Exchangeable(), noise=Common())),
        "tasks": (of_tasks, SharedTrunk(Identity(), Clustered())),
    }[problem]
    tasks = make(size)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bmtl.ConvergenceWarning)
        fit = bmtl.fit(model, tasks, restarts=1, trunk="guide", progress=False, device="cpu", **SVI[problem])
    fitted = time.perf_counter()
    fit.elpd()
    read = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"size": size, "cells": int(sum(tasks.n_cells)), "fit": fitted - start, "loo": read - fitted, "GiB": peak}


def apart(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def import_seconds() -> float:
    """Median over fresh interpreters."""
    code = "import time; a = time.perf_counter(); import bmtl; print(time.perf_counter() - a)"
    return float(np.median([float(apart("-c", code)) for _ in range(7)]))


def slope(found: list[dict[str, float]], what: str) -> float:
    """Of the logarithm on that of the size, between the two largest sizes: 1 is proportional."""
    (a, b) = found[-2:]
    return float(np.log(b[what] / a[what]) / np.log(b["size"] / a["size"]))


def draw(found: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Seconds and GiB against size, a line a problem."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    shown = ("fit", "seconds a fit"), ("GiB", "GiB at the peak")
    for axes, (what, label) in zip(figure.subplots(1, 2), shown, strict=True):
        for problem, own in found.items():
            text = f"{problem}, slope {slope(own, what):.2f}" if len(own) > 1 else problem
            axes.semilogx([row["size"] for row in own], [row[what] for row in own], marker="o", label=text)
        axes.set(xlabel="rows, groups or tasks", ylabel=label, ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--largest", type=int, default=max(max(own) for own in SIZES.values()))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--measure", nargs=2, metavar=("PROBLEM", "SIZE"), help="one fit, in this process")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure[0], int(arguments.measure[1]))))
        return
    # What an earlier call measured of other problems stays.
    found: dict[str, list[dict[str, float]]] = record.read(arguments.out).get("problems", {})
    seconds = import_seconds()
    print(f"import bmtl: {seconds:.3f} s")
    for problem in arguments.only:
        found[problem] = []
        for size in (own for own in SIZES[problem] if own <= arguments.largest):
            row = json.loads(apart("-m", "benchmarks.scale", "--measure", problem, str(size)).splitlines()[-1])
            found[problem].append(row)
            line = f"{problem:>8} {size:>10,} {row['fit']:8.1f} s {row['loo']:8.1f} s LOO {row['GiB']:6.2f} GiB"
            print(line, flush=True)
            record.write(arguments.out, settings=SVI, import_seconds=seconds, problems=found)
        if len(found[problem]) > 1:
            slopes = [slope(found[problem], what) for what in ("fit", "GiB")]
            print(f"{problem:>8} slopes: time {slopes[0]:.2f}, memory {slopes[1]:.2f}")
    if arguments.figure:
        draw(found, arguments.figure)


if __name__ == "__main__":
    main()
