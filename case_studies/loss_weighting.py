"""Loss weighting: what do learned uncertainty weights get wrong, and what does a posterior get right?

Kendall, Gal & Cipolla (2018) weight each task's loss by 1/σ² and learn log σ by gradient descent. Two published
examples are run as they were published, in the outcomes' own units, and again with a posterior over σ.

* *Gal's example*: 100 rows, one input, two outcomes with noises of 10 and 1, a wide network. The true noises are known,
  and so is what 100 rows can tell of them.
* *GradNorm's toy* (Chen et al. 2018, section 4): ten related functions of 50 inputs in units that differ by a factor of
  27, without noise. By symmetry every task's weight should be the inverse of its squared unit, times the same number.

What goes wrong: log σ starts at 0, a step moves it by no more than the learning rate, and so the weights are those of
where training was stopped and of the units that somebody chose, with no interval that would say so. Standardising the
outcomes first mends most of it, and costs nothing. A posterior has neither a start nor a stop, does not change with the
units, and says how much is not known.

Data: Gal's is the notebook of github.com/yaringal/multi-task-learning-example, drawn with its seed; the toy is drawn.

    python case_studies/loss_weighting.py [--quick] [--report out/loss_weighting.html]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy.stats import chi2, linregress

import bmtl
from bmtl.models import SharedTrunk
from bmtl.report import study
from bmtl.report.style import COLOURS, FAINT, make, title
from bmtl.training import Sampling, Static, Trained, Uncertainty
from bmtl.trunks import MLP

RATES = (0.001, 0.01)
"""Learning rates of Adam; the first is Gal's."""

GAL = (
    "Learned in the outcomes’ own units, log σ is at first where it started, whatever the data say: how far it has "
    "come depends on the learning rate and the epochs. On standardised outcomes it starts next to where it belongs."
)
TOY = (
    "Ten functions that differ in nothing but their draw and their unit. There is no noise: what σ finds is how well "
    "each task is fitted so far."
)

NOISE = {"first": 10.0, "second": 1.0}
"""Of Gal's example."""

SCALES = np.array([48.0, 3.0, 54.0, 16.0, 9.0, 30.0, 52.0, 26.0, 47.0, 81.0])
INPUTS, ROWS = 50, {"train": 1000, "validation": 500, "test": 2000}
TRUNK, STEPS = MLP((32, 32), "relu"), 1000
"""Of GradNorm's toy."""


def example() -> bmtl.Tasks:
    """Gal's example, drawn as it was published."""
    draw = np.random.RandomState(0)
    X = draw.randn(100, 1)
    first, second = 2.0 * X + 8.0 + 10.0 * draw.randn(100, 1), 3.0 * X + 3.0 + draw.randn(100, 1)
    return bmtl.Tasks.from_arrays(X, np.column_stack([first, second]), ["gaussian"] * 2, names=list(NOISE))


def own_units(tasks: bmtl.Tasks) -> bmtl.Tasks:
    """The same tasks with outcomes that are not standardised: as a network sees them that nobody cared for."""
    n = tasks.n_tasks
    return replace(tasks, y_centre=np.zeros(n), y_scale=np.ones(n))


def classical(tasks: bmtl.Tasks, prob: float = 0.95) -> pd.DataFrame:
    """Exact confidence intervals of noises around straight lines, what the rows can tell: columns task, low, high."""
    rows = []
    for name, rows_of, y in zip(tasks.names, tasks.rows, tasks.y, strict=True):
        design = np.column_stack([np.ones(len(y)), tasks.X[rows_of]])
        left = float(np.linalg.lstsq(design, y)[1][0])
        tails = chi2.ppf([(1 + prob) / 2, (1 - prob) / 2], len(y) - design.shape[1])
        rows.append((name, *np.sqrt(left / tails)))
    return pd.DataFrame(rows, columns=["task", "low", "high"])


def learned(tasks: bmtl.Tasks, rate: float, epochs: int, width: int) -> pd.DataFrame:
    """Noises by epoch, in the units of the tasks, as Gal's notebook trains: columns epoch, task, noise."""
    trained = bmtl.train(
        MLP((width,), "relu"), tasks, weighting=Uncertainty(), optimiser=partial(torch.optim.Adam, lr=rate),
        sampling=Sampling(batch_size=40), epochs=epochs, seed=0, device="cpu", progress=False,
    )
    return trained.history[["epoch", "task", "noise"]]


def posterior(tasks: bmtl.Tasks, quick: bool) -> bmtl.Fit:
    """The same by NUTS, on a smaller network."""
    options = {"warmup": 300, "draws": 300} if quick else {}
    return bmtl.fit(SharedTrunk(MLP((8,))), tasks, method="nuts", marginal=True, seed=0, **options)


class Toy(NamedTuple):
    tasks: bmtl.Tasks
    x: dict[str, np.ndarray]
    y: dict[str, np.ndarray]

    def loss(self, predicted: np.ndarray, part: str) -> np.ndarray:
        """Mean square of each task's errors over its scale."""
        return np.mean(((predicted - self.y[part]) / SCALES) ** 2, axis=0)


def toy(seed: int) -> Toy:
    """GradNorm's toy: ``σ_i tanh((b + ε_i)·x)``, b ~ N(0, 10) and ε_i ~ N(0, 3.5) (variances), inputs of length one."""
    rng = np.random.default_rng([seed, 11])
    common = rng.normal(0.0, np.sqrt(10.0), INPUTS)[:, None]
    own = rng.normal(0.0, np.sqrt(3.5), (INPUTS, len(SCALES)))
    x = {part: rng.normal(size=(n, INPUTS)) for part, n in ROWS.items()}
    x = {part: value / np.linalg.norm(value, axis=1, keepdims=True) for part, value in x.items()}
    y = {part: SCALES * np.tanh(value @ (common + own)) for part, value in x.items()}
    return Toy(bmtl.Tasks.from_arrays(x["train"], y["train"], ["gaussian"] * len(SCALES)), x, y)


def by_training(
    weighting: Callable[[bmtl.Tasks], Any], tasks: bmtl.Tasks, seed: int, rate: float, decay: float
) -> Trained:
    """The toy's network, trained."""
    adam = partial(torch.optim.AdamW, lr=rate, weight_decay=decay)
    return bmtl.train(
        TRUNK, tasks, weighting=weighting(tasks), optimiser=adam, epochs=STEPS, seed=seed, device="cpu",
        progress=False,
    )


def by_svi(steps: int, tasks: bmtl.Tasks, seed: int, **options: Any) -> bmtl.Fit:
    """The toy's network under a posterior."""
    with warnings.catch_warnings():
        # Whether it settled is no reason to leave a fit out of a comparison at equal cost.
        warnings.simplefilter("ignore", bmtl.ConvergenceWarning)
        return bmtl.fit(
            SharedTrunk(TRUNK), tasks, seed=seed, restarts=1, max_steps=steps, batch_size=ROWS["train"], draws=200,
            engine="numpyro", progress=False, **options,
        )


def predicted(fit: bmtl.Fit | Trained, x: np.ndarray) -> np.ndarray:
    """Expected outcomes, rows × tasks."""
    if isinstance(fit, Trained):
        return fit.predict(x).to_numpy()
    mean = fit.predict(x)["mean"]
    return np.column_stack([mean[name].to_numpy().mean(axis=(0, 1)) for name in fit.tasks.names])


def squares(tasks: bmtl.Tasks, by: np.ndarray) -> Static:
    """Squared errors over ``by²`` on outcomes that are standardised, with weights of mean 1."""
    weights = (np.asarray(tasks.y_scale) / by) ** 2
    return Static(dict(zip(tasks.names, (weights / weights.mean()).tolist(), strict=True)))


def slope(weights: np.ndarray) -> tuple[float, float]:
    """By which power of 1/σ_i² the toy's weights go, and its standard error: 1 is right, 0 is one weight for all."""
    line = linregress(-2.0 * np.log(SCALES), np.log(weights))
    return float(line.slope), float(np.nan_to_num(line.stderr))  # not a number of equal weights


def on_toy(steps: int) -> pd.DataFrame:
    """One row a method: test mean square over σ_i², mean and worst task, and the power of its weights."""
    data = toy(0)
    raw = own_units(data.tasks)
    methods: dict[str, Callable[[], bmtl.Fit | Trained]] = {
        "sum of squares, own units": lambda: by_training(
            lambda tasks: squares(tasks, np.ones(len(SCALES))), data.tasks, 0, RATES[1], 0.0),
        f"uncertainty, own units, rate {RATES[0]}": lambda: by_training(lambda _: Uncertainty(), raw, 0, RATES[0], 0.0),
        f"uncertainty, own units, rate {RATES[1]}": lambda: by_training(lambda _: Uncertainty(), raw, 0, RATES[1], 0.0),
        "uncertainty, standardised": lambda: by_training(lambda _: Uncertainty(), data.tasks, 0, RATES[1], 0.0),
        "posterior": lambda: by_svi(steps, data.tasks, 0, trunk="point", learning_rate=0.03),
    }
    rows = []
    for name, fitted in methods.items():
        fit = fitted()
        loss = data.loss(predicted(fit, data.x["test"]), "test")
        if isinstance(fit, Trained):
            last = fit.history[fit.history["epoch"] == STEPS]
            weights = np.ones(len(SCALES)) if "squares" in name else last["noise"].to_numpy() ** -2
        else:
            weights = fit.weights()["weight"].to_numpy()
        rows.append((name, loss.mean(), loss.max(), *slope(weights)))
    return pd.DataFrame(rows, columns=["method", "mean", "worst", "power of the weights", "±"])


def draw(traces: dict[str, pd.DataFrame], weights: pd.DataFrame) -> Figure:
    """Gal's first noise by epoch, and its posterior."""

    def on(fig: Figure) -> None:
        ax = fig.subplots()
        title(fig, "Noise of Gal’s first outcome, true value 10")
        for (name, trace), colour in zip(traces.items(), list(COLOURS.values())[1:], strict=False):
            own = trace[trace["task"] == "first"]
            ax.plot(own["epoch"], own["noise"], color=colour, label=name)
        row = weights.set_index("task").loc["first"]
        ax.axhspan(row["noise_low"], row["noise_high"], color=COLOURS["merge"], alpha=0.25, label="posterior, 95 %")
        ax.axhline(NOISE["first"], color=FAINT, linestyle="--", linewidth=1)
        ax.set_xlabel("epochs of training")
        ax.set_ylabel("σ")
        ax.set_ylim(0, 1.25 * row["noise_high"])
        fig.legend(loc="outside lower center", ncols=2)

    return make(on, (4.8, 3.4))


def main() -> tuple[dict[str, pd.DataFrame], pd.DataFrame, pd.DataFrame]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--quick", action="store_true",
        help="400 epochs of 256 units instead of 4,000 of 1,024, and 1,200 posterior draws instead of 4,000",
    )
    parser.add_argument("--report", type=Path, default=Path("out/loss_weighting.html"))
    arguments = parser.parse_args()
    start, quick = time.perf_counter(), arguments.quick
    epochs, width = (400, 256) if quick else (4000, 1024)
    tasks = example()
    traces = {
        **{f"own units, rate {rate}": learned(own_units(tasks), rate, epochs, width) for rate in RATES},
        "standardised": learned(tasks, RATES[0], epochs, width),
    }
    fit = posterior(tasks, quick)
    weights, rows_tell = fit.weights(0.95), classical(tasks)
    last = {name: trace.groupby("task", sort=False)["noise"].last() for name, trace in traces.items()}
    table = pd.DataFrame({"task": list(NOISE), "truth": list(NOISE.values())}).assign(
        **{name: own.to_numpy() for name, own in last.items()},
        posterior=weights["noise"], low=weights["noise_low"], high=weights["noise_high"],
        **{"lines, low": rows_tell["low"], "lines, high": rows_tell["high"]},
    )
    compared = on_toy(5 * STEPS)
    first = table.iloc[0]
    gal = (
        f"Gal’s example, true noise {first.truth:.0f}: after {epochs} epochs "
        + ", ".join(f"{own['first']:.2f} ({name})" for name, own in last.items())
        + f"; posterior {first.posterior:.2f} (95 % interval {first.low:.2f} to {first.high:.2f}; what the rows can "
        f"tell is {first['lines, low']:.2f} to {first['lines, high']:.2f})."
    )
    said = (
        "GradNorm’s toy: weights should go with 1/σ² to the power 1; "
        + ", ".join(f"{power:.2f} ± {se:.2f} ({own})" for own, *_, power, se in compared.itertuples(index=False)) + "."
    )
    print(f"{gal}\n\n{table.round(2).to_string(index=False)}\n\n{said}\n\n{compared.round(4).to_string(index=False)}\n")
    arguments.report.parent.mkdir(parents=True, exist_ok=True)
    study.write(
        arguments.report, "What do learned uncertainty weights get wrong?",
        ["They are those of where training was stopped and of the units; a posterior has neither.", gal, said],
        [
            study.Section(
                "Gal’s example", GAL, table, "Noises: true, learned by the last epoch, and posterior means with 95 % "
                "intervals; exact confidence intervals around straight lines.", draw(traces, weights), gal,
            ),
            study.Section(
                "GradNorm’s toy", TOY, compared, "Test mean squares over σ_i², mean over tasks and of the worst one, "
                f"after {STEPS} steps (the posterior: {5 * STEPS}); weights go with that power of 1/σ², ± its standard "
                "error over the ten tasks.",
            ),
        ],
        warnings=[] if fit.converged else [f"The posterior of Gal’s example did not converge: {fit.problems}."],
        settings={key: value for key, value in fit.summary().items() if key != "arrangement"},
    )
    print(f"Report: {arguments.report} ({time.perf_counter() - start:.0f} s)")
    return traces, table, compared


if __name__ == "__main__":
    main()
