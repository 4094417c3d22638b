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
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import bmtl
from benchmarks import record
from bmtl.models import SharedTrunk
from bmtl.training import GradNorm, PCGrad, Profiled, Static, Uncertainty, Unitary
from bmtl.trunks import MLP

SCALES = np.array([48.0, 3.0, 54.0, 16.0, 9.0, 30.0, 52.0, 26.0, 47.0, 81.0])
INPUTS, ROWS = 50, {"train": 1000, "validation": 500, "test": 2000}
TRUNK, STEPS = MLP((32, 32), "relu"), 1000
TRAINING = ({"rate": 0.003, "decay": 0.0}, {"rate": 0.01, "decay": 0.0}, {"rate": 0.01, "decay": 0.3})
BAYESIAN = (
    {"trunk": "guide", "learning_rate": 0.03},
    {"trunk": "point", "learning_rate": 0.03},
    {"trunk": "point", "learning_rate": 0.01},
)


class Toy(NamedTuple):
    tasks: bmtl.Tasks
    x: dict[str, np.ndarray]
    y: dict[str, np.ndarray]

    def loss(self, predicted: np.ndarray, part: str) -> np.ndarray:
        """Mean square of each task's errors over its scale."""
        return np.mean(((predicted - self.y[part]) / SCALES) ** 2, axis=0)


def toy(seed: int) -> Toy:
    rng = np.random.default_rng([seed, 11])
    common = rng.normal(0.0, np.sqrt(10.0), INPUTS)[:, None]
    own = rng.normal(0.0, np.sqrt(3.5), (INPUTS, len(SCALES)))
    x = {part: rng.normal(size=(n, INPUTS)) for part, n in ROWS.items()}
    x = {part: value / np.linalg.norm(value, axis=1, keepdims=True) for part, value in x.items()}
    y = {part: SCALES * np.tanh(value @ (common + own)) for part, value in x.items()}
    return Toy(bmtl.Tasks.from_arrays(x["train"], y["train"], ["gaussian"] * len(SCALES)), x, y)


def by_training(
    weighting: Callable[[bmtl.Tasks], Any], data: Toy, seed: int, rate: float, decay: float
) -> Callable[[str], np.ndarray]:
    adam = partial(torch.optim.AdamW, lr=rate, weight_decay=decay)
    fit = bmtl.train(
        TRUNK, data.tasks, weighting=weighting(data.tasks), optimiser=adam, epochs=STEPS, seed=seed, device="cpu",
        progress=False,
    )
    return lambda part: fit.predict(data.x[part]).to_numpy()


def by_svi(steps: int, data: Toy, seed: int, **options: Any) -> Callable[[str], np.ndarray]:
    with warnings.catch_warnings():
        # Whether it settled is no reason to leave a fit out of a comparison at equal cost.
        warnings.simplefilter("ignore", bmtl.ConvergenceWarning)
        fit = bmtl.fit(
            SharedTrunk(TRUNK), data.tasks, seed=seed, restarts=1, max_steps=steps, batch_size=ROWS["train"], draws=200,
            engine="numpyro", progress=False, **options,
        )

    def predict(part: str) -> np.ndarray:
        mean = fit.predict(data.x[part])["mean"]
        return np.column_stack([mean[name].to_numpy().mean(axis=(0, 1)) for name in data.tasks.names])

    return predict


def squares(tasks: bmtl.Tasks, by: np.ndarray) -> Static:
    """Squared errors over ``by²`` on outcomes that are standardised, with weights of mean 1."""
    weights = (np.asarray(tasks.y_scale) / by) ** 2
    return Static(dict(zip(tasks.names, (weights / weights.mean()).tolist(), strict=True)))


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
        predict = method(data, seed, **setting)
        validation = float(data.loss(predict("validation"), "validation").mean())
        if best is None or validation < best[0]:
            best = validation, setting, predict
    assert best is not None
    validation, setting, predict = best
    test = data.loss(predict("test"), "test")
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
