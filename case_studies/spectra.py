"""Spectra of meat: are water and fat one thing seen twice, with a sign flipped?

An infrared analyser reads the contents of water, fat and protein of a meat sample from its spectrum. What is not water
is mostly fat: over 215 samples their contents correlate by −0.99, and one function, with its sign flipped, looks like
enough for both. Whether it is depends on how much of the spectrum one looks at:

* through one principal component, how dark the sample is, they are one function: *merge*, sign flipped;
* through ten, contents are known to half a percent, and what water and fat do not have in common, protein, shows:
  *weight*. One function for all would cost more than a hundred nats.

Data: case_studies/data/meats.csv (Tecator; see meats.md beside it).

    python case_studies/spectra.py [--quick] [--report out/spectra.html]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

import bmtl
from bmtl.advice.screen import screen
from bmtl.models import SharedTrunk

DATA = Path(__file__).parent / "data" / "meats.csv"
CONTENTS = ("water", "fat", "protein")
COMPONENTS = 10
COARSER = (1, 3)
MODEL = SharedTrunk(bmtl.trunks.MLP((16,)))


def read(components: int = COMPONENTS) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """Contents and principal components of the spectra; outcomes with their families; and inputs."""
    frame = pd.read_csv(DATA)
    spectra = frame.filter(like="x_").to_numpy()
    left, size, _ = np.linalg.svd(spectra - spectra.mean(axis=0), full_matrices=False)
    names = [f"component {i + 1}" for i in range(components)]
    inputs = pd.DataFrame((left * size)[:, :components], columns=names)
    return frame[list(CONTENTS)].join(inputs), dict.fromkeys(CONTENTS, "gaussian"), names


def tasks(components: int = COMPONENTS) -> bmtl.Tasks:
    """The three contents, given so many components of the spectrum."""
    frame, outputs, inputs = read(components)
    return bmtl.Tasks.from_frame(frame, inputs, outputs)


def seen_through(components: tuple[int, ...]) -> pd.DataFrame:
    """What the screen says of water and fat, by the number of components it looks through."""
    rows = []
    for k in components:
        (pair, *_) = screen(tasks(k), linear=False, seed=0).pairs
        rows.append((k, pair.p_merge, pair.p_weight, pair.p_decouple, pair.correlation))
    return pd.DataFrame(rows, columns=["components", "p_merge", "p_weight", "p_decouple", "correlation"])


def main() -> bmtl.Advice:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="two folds instead of five, one restart instead of three")
    parser.add_argument("--report", type=Path, default=Path("out/spectra.html"))
    arguments = parser.parse_args()
    start = time.perf_counter()
    print("Water and fat through a few components of the spectrum")
    print(seen_through(COARSER).round(2).to_string(index=False))
    folds, restarts = (2, 1) if arguments.quick else (5, 3)
    advice = bmtl.advise(MODEL, tasks(), seed=0, folds=folds, restarts=restarts)
    print(f"\nThrough {COMPONENTS} components\n{advice}\n\n{advice.why('water', 'fat')}\n")
    for row in advice.tasks.itertuples():
        print(f"{row.task}: to ± {row.noise:.2f} % (89 % interval {row.noise_low:.2f} to {row.noise_high:.2f})")
    gaps = advice.differences.pivot(index="task", columns="arrangement", values="difference").sum()
    print(f"One function for all instead of a head each: {gaps['merged'] - gaps['weighted']:+.0f} nats.")
    arguments.report.parent.mkdir(parents=True, exist_ok=True)
    advice.report(arguments.report)
    print(f"Report: {arguments.report} ({time.perf_counter() - start:.0f} s)")
    return advice


if __name__ == "__main__":
    main()
