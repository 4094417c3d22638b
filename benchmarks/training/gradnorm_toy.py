"""GradNorm's toy: ten related regressions whose outcomes differ in scale, by every weighting and by a Bayesian fit.

Task i is ``σ_i tanh((b + ε_i)·x)`` with b ~ N(0, 10) and ε_i ~ N(0, 3.5) in every input (variances), as in Chen et al.,
"GradNorm", ICML 2018, section 4, but with one outcome a task, 50 inputs of unit length in all, and 1,000 rows to train
on (500 to choose by, 2,000 to test) in the place of endless ones. Figures are test mean squares over σ_i².

bmtl standardises outcomes, which alone undoes most of what the toy is about: *units* is the plain sum of squared errors
in the outcomes' own units, every other method starts from standardised ones. All take 1,000 steps on all rows, and each
has three settings to choose from on the validation rows: learning rates and a weight decay, or for the Bayesian fit its
treatment of the trunk and learning rates. 1,000 steps are no more than SVI's warm-up, and its steps are the cheapest:
it is given 5,000 as well.

Usage: ``python -m benchmarks.training.gradnorm_toy [--seeds 5] [--only NAME] [--out FILE.json]``
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from bmtl.training import GradNorm, PCGrad, Profiled, Uncertainty, Unitary
from case_studies.loss_weighting import ROWS, SCALES, STEPS, by_svi, by_training, predicted, squares, toy

TRAINING = ({"rate": 0.003, "decay": 0.0}, {"rate": 0.01, "decay": 0.0}, {"rate": 0.01, "decay": 0.3})
BAYESIAN = (
    {"trunk": "guide", "learning_rate": 0.03},
    {"trunk": "point", "learning_rate": 0.03},
    {"trunk": "point", "learning_rate": 0.01},
)

METHODS: dict[str, tuple[Callable[..., Any], tuple[dict[str, Any], ...]]] = {
    "units": (partial(by_training, lambda tasks: squares(tasks, np.ones(len(SCALES)))), TRAINING),
    "Unitary": (partial(by_training, lambda tasks: Unitary()), TRAINING),
    "Static oracle": (partial(by_training, lambda tasks: squares(tasks, SCALES)), TRAINING),
    "Uncertainty": (partial(by_training, lambda tasks: Uncertainty()), TRAINING),
    "Profiled": (partial(by_training, lambda tasks: Profiled()), TRAINING),
    "GradNorm": (partial(by_training, lambda tasks: GradNorm(alpha=0.12)), TRAINING),
    "PCGrad": (partial(by_training, lambda tasks: PCGrad()), TRAINING),
    "SVI": (partial(by_svi, STEPS), BAYESIAN),
    "SVI, 5,000 steps": (partial(by_svi, 5 * STEPS), BAYESIAN),
}


def measure(name: str, seed: int) -> dict[str, Any]:
    """The best of a method's three settings on the validation rows, on the test rows."""
    method, settings = METHODS[name]
    data, start, best = toy(seed), time.perf_counter(), None
    for setting in settings:
        fit = method(data.tasks, seed, **setting)
        validation = float(data.loss(predicted(fit, data.x["validation"]), "validation").mean())
        if best is None or validation < best[0]:
            best = validation, setting, fit
    assert best is not None
    validation, setting, fit = best
    test = data.loss(predicted(fit, data.x["test"]), "test")
    return {"method": name, "seed": seed, "mean": float(test.mean()), "worst": float(test.max()),
            "validation": validation, **setting, "seconds": round(time.perf_counter() - start, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    runs = record.read(arguments.out).get("runs", [])
    done = {(run["method"], run["seed"]) for run in runs}
    print(f"{'':20}{'mean':>8}{'se':>8}{'worst':>8}{'se':>8}{'seconds':>10}")
    for name in METHODS:
        if arguments.only not in name:
            continue
        runs += [measure(name, seed) for seed in range(arguments.seeds) if (name, seed) not in done]
        record.write(arguments.out, steps=STEPS, rows=ROWS, runs=runs)
        own = [run for run in runs if run["method"] == name]
        found = [np.array([run[key] for run in own]) for key in ("mean", "worst", "seconds")]
        se = [value.std(ddof=1) / np.sqrt(len(value)) if len(value) > 1 else np.nan for value in found]
        print(f"{name:20}{found[0].mean():8.4f}{se[0]:8.4f}{found[1].mean():8.4f}{se[1]:8.4f}{found[2].mean():10.1f}",
              flush=True)


if __name__ == "__main__":
    main()
