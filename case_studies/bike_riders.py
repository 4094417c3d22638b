"""Bike riders: do casual and registered riders obey one mechanism, and will it hold next month?

Bicycles are rented by casual riders and by registered ones, hour by hour. Both come with the daylight and the warmth,
so their numbers look alike. But the same input can push them apart: on a working day, with the same weather and over
the same hours, there are fewer than half as many casual riders and about a third more registered ones. What fits the
one must not be merged with the other.

Two questions, of the same hours:

* Does the working day push the two apart (`bmtl.causal`)? Effects are averaged over graphs of what acts on what, and
  the working day may act differently by hour. Its effect in all is that of setting it: the same hours, as working days
  and as days off.
* Should one function serve both, if it is to predict later months from earlier ones (`bmtl.Folds.by_time`)? Winter is
  all that the first months know, and rows left out at random would hide that. Registered riders lose by it, whatever it
  does for casual ones, whose own function of a winter's warmth says little of summer.

Data: case_studies/data/bikeshare.csv (UCI; see bikeshare.md beside it).

    python case_studies/bike_riders.py [--quick] [--report out/bike_riders.html]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

import bmtl
from bmtl.causal import Effects, dag_posterior, effects
from bmtl.models import SharedTrunk

DATA = Path(__file__).parent / "data" / "bikeshare.csv"
RIDERS = ("casual", "registered")
FAMILY = "negative_binomial"
HARMONICS = ("sin 1", "cos 1", "sin 2", "cos 2")
INPUTS = ("workingday", "temp", "hum", "windspeed", *HARMONICS)
HOURS = 500
"""On which the working day is set."""


def read(rows: int | None = None) -> pd.DataFrame:
    """Hours in the order of time (or some of them, at random), with two harmonics of the hour of the day."""
    frame = pd.read_csv(DATA)
    hour = 2.0 * np.pi * frame["hr"] / 24.0
    for k in (1, 2):
        frame = frame.assign(**{f"sin {k}": np.sin(k * hour), f"cos {k}": np.cos(k * hour)})
    return frame if rows is None else frame.sample(rows, random_state=0).sort_index().reset_index(drop=True)


def by_hour(frame: pd.DataFrame) -> pd.DataFrame:
    """With the products of the working day and the harmonics of the hour."""
    return frame.assign(**{f"workingday × {name}": frame["workingday"] * frame[name] for name in HARMONICS})


def ratios(found: Effects, frame: pd.DataFrame) -> pd.DataFrame:
    """Logarithms of the ratio of mean riders on working days and other days, on the same hours.

    Columns task, log_ratio, low, high (89 %), and p_opposite: the probability that the two go opposite ways.
    """
    hours = frame.sample(min(HOURS, len(frame)), random_state=0)
    means = [found.do({}, by_hour(hours.assign(workingday=day))).means for day in (1, 0)]
    logs = {name: np.log(means[0][name].mean(axis=1) / means[1][name].mean(axis=1)) for name in RIDERS}
    rows = [(name, own.mean(), *np.quantile(own, [0.055, 0.945])) for name, own in logs.items()]
    opposite = float(np.mean(logs["casual"] * logs["registered"] < 0))
    return pd.DataFrame(rows, columns=["task", "log_ratio", "low", "high"]).assign(p_opposite=opposite)


def mechanisms(frame: pd.DataFrame) -> Effects:
    """Effects averaged over graphs, with the working day acting differently by hour."""
    extra = [name for name in by_hour(frame) if name.startswith("workingday ×")]
    inputs = [*INPUTS, "day", *extra]
    tasks = bmtl.Tasks.from_frame(by_hour(frame), inputs, dict.fromkeys(RIDERS, FAMILY))
    return effects(tasks, dag_posterior(tasks), draws=4, seed=0)


def drift(frame: pd.DataFrame, quick: bool) -> bmtl.Advice:
    """Advice on both, judged by later months predicted from earlier ones."""
    tasks = bmtl.Tasks.from_frame(frame, INPUTS, dict.fromkeys(RIDERS, FAMILY))
    trunk: bmtl.trunks.Trunk = bmtl.trunks.Identity() if quick else bmtl.trunks.MLP((16,))
    later = bmtl.Folds.by_time(frame["day"], k=2 if quick else 5)
    return bmtl.advise(SharedTrunk(trunk), tasks, folds=later, seed=0, restarts=1 if quick else 3)


def main() -> tuple[pd.DataFrame, bmtl.Advice]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--quick", action="store_true",
        help="1,500 of 8,645 hours, linear functions instead of a network, two folds, one restart",
    )
    parser.add_argument("--report", type=Path, default=Path("out/bike_riders.html"))
    arguments = parser.parse_args()
    start = time.perf_counter()
    frame = read(1_500 if arguments.quick else None)
    found = ratios(mechanisms(frame), frame)
    for row in found.itertuples():
        more, low, high = np.exp([row.log_ratio, row.low, row.high])
        print(f"{row.task}: {more:.2f} ({low:.2f} to {high:.2f}) times as many on a working day, all else equal.")
    print(f"They go opposite ways with a probability of {found['p_opposite'][0]:.3f}.\n")
    advice = drift(frame, arguments.quick)
    print(f"{advice}\n\n{advice.why(*RIDERS)}\n")
    merged = advice.differences[advice.differences["arrangement"] == "merged"]
    print("One function for both instead of a model each, in later months predicted from earlier ones:")
    for row in merged.itertuples():
        print(f"  {row.task}: {row.difference:+.0f} ± {row.se:.0f} nats in {row.n:,} hours")
    arguments.report.parent.mkdir(parents=True, exist_ok=True)
    advice.report(arguments.report)
    print(f"Report: {arguments.report} ({time.perf_counter() - start:.0f} s)")
    return found, advice


if __name__ == "__main__":
    main()
