"""Spectra of meat: are water and fat one thing seen twice, with a sign flipped?

An infrared analyser reads the contents of water, fat and protein of a meat sample from its spectrum. What is not water
is mostly fat: over 215 samples their contents correlate by −0.99, and one function, with its sign flipped, looks like
enough for both. Whether it is depends on how much of the spectrum one looks at:

* through one principal component, how dark the sample is, they are one function: *merge*, sign flipped;
* through ten, contents are known to half a percent, and what water and fat do not have in common, protein, shows:
  *weight*. One function for all would cost more than a hundred nats.

A row-permuted copy of the water content is the negative control: it must be decoupled from everything.

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
from bmtl.models import SharedTrunk

DATA = Path(__file__).parent / "data" / "meats.csv"
CONTENTS = ("water", "fat", "protein")
CONTROL = "water (permuted)"
COMPONENTS = 10
MODEL = SharedTrunk(bmtl.trunks.MLP((16,)))


def read(components: int = COMPONENTS) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """Contents and principal components of the spectra; outcomes with their families; and inputs."""
    frame = pd.read_csv(DATA)
    spectra = frame.filter(like="x_").to_numpy()
    left, size, _ = np.linalg.svd(spectra - spectra.mean(axis=0), full_matrices=False)
    names = [f"component {i + 1}" for i in range(components)]
    inputs = pd.DataFrame((left * size)[:, :components], columns=names)
    return frame[list(CONTENTS)].join(inputs), dict.fromkeys(CONTENTS, "gaussian"), names


def advise(components: int, quick: bool) -> bmtl.Advice:
    """Advice on the three contents and the control, from so many components of the spectrum."""
    frame, outputs, inputs = read(components)
    tasks = bmtl.Tasks.from_frame(frame, inputs, outputs).permuted("water", seed=0, new_name=CONTROL)
    return bmtl.advise(MODEL, tasks, seed=0, folds=2 if quick else 5, restarts=1 if quick else 3)


def main() -> dict[int, bmtl.Advice]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="two folds instead of five, one restart instead of three")
    parser.add_argument("--report", type=Path, default=Path("out/spectra.html"))
    arguments = parser.parse_args()
    start = time.perf_counter()
    found = {components: advise(components, arguments.quick) for components in (1, COMPONENTS)}
    for components, advice in found.items():
        print(f"Through {components} of the spectrum's components\n{advice}\n\n{advice.why('water', 'fat')}\n")
    fine = found[COMPONENTS]
    lost = fine.differences.pivot(index="task", columns="arrangement", values="difference").loc[list(CONTENTS)]
    for task, row in fine.tasks.set_index("task").loc[list(CONTENTS)].iterrows():
        print(f"{task}: ± {row['noise']:.2f} % (89 % interval {row['noise_low']:.2f} to {row['noise_high']:.2f})")
    print(f"One function for all instead of a head each: {(lost['merged'] - lost['weighted']).sum():+.0f} nats.")
    arguments.report.parent.mkdir(parents=True, exist_ok=True)
    fine.report(arguments.report)
    print(f"Report: {arguments.report} ({time.perf_counter() - start:.0f} s)")
    return found


if __name__ == "__main__":
    main()
