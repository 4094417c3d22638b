"""Are posteriors right? Simulation-based calibration of every model, family, relation and trunk, on both engines.

For each case data sets are drawn from the prior and fitted (`bmtl.diagnostics.simulation_based_calibration`): three
tasks of one family on 16 rows of two inputs, a tenth of the cells missing (none where tasks act on each other). By
default each part is taken in turn, the others being those of the base case: `SharedTrunk`, Gaussian outcomes,
independent heads on the inputs themselves. ``--all`` takes every combination.

* *NUTS on NumPyro* must be calibrated: no quantity's ranks may depart from uniform at 1% over all quantities (Holm).
  The table has the smallest p-value before that correction, the quantity it belongs to, the smallest tenth of the
  effective sample sizes, and the share of fits with divergent iterations, which are kept.
* *SVI* is an approximation: the table has the coverage of its central 50% and 89% intervals, mean over the
  quantities, for each guide, on NumPyro and (with fewer simulations, for they follow one another) on Pyro.

Usage: ``python -m benchmarks.calibration [--simulations 200] [--pyro 20] [--seed 0] [--all] [--methods nuts svi pyro]
[--guides mean_field low_rank full_rank flow] [--only 'SharedTrunk/gaussian/*'] [--out FILE.json]``. ``--out`` is
written after every case; results that it holds already and that are not made again stay in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import bmtl
from benchmarks import record
from bmtl import EdgePrior, relations, trunks
from bmtl.diagnostics import Calibration, simulation_based_calibration
from bmtl.families import FAMILIES
from bmtl.fitting.settings import GUIDES
from bmtl.models import CausalTasks, Decoupled, Merged, SharedTrunk

Array = NDArray[np.float64]

ROWS, TASKS, MISSING = 16, 3, 0.1
RATE = 3.0
TRIALS = 6.0

OUTCOMES: dict[str, Callable[[np.random.Generator, Array], Any]] = {
    "gaussian": lambda rng, f: 20.0 + 4.0 * f + 3.0 * rng.normal(size=f.shape),
    "student_t": lambda rng, f: f + rng.standard_t(4, f.shape),
    "laplace": lambda rng, f: f + rng.laplace(size=f.shape),
    "lognormal": lambda rng, f: np.exp(0.5 * f + 0.5 * rng.normal(size=f.shape)),
    "gamma": lambda rng, f: np.exp(0.5 * f) * rng.gamma(3.0, 1 / 3.0, f.shape),
    # Of small dispersion: of shares drawn from the prior next to none are then too near 1 for single precision.
    "beta": lambda rng, f: rng.beta(*(40.0 / (1.0 + np.exp([-f, f])))),
    "bernoulli": lambda rng, f: (f + rng.logistic(size=f.shape) > 0).astype(float),
    "binomial": lambda rng, f: rng.binomial(int(TRIALS), 1.0 / (1.0 + np.exp(-f))).astype(float),
    "categorical": lambda rng, f: np.digitize(f + rng.logistic(size=f.shape), [-1.0, 1.0]).astype(float),
    "ordinal": lambda rng, f: np.digitize(f + rng.logistic(size=f.shape), [-1.0, 1.0]).astype(float),
    "poisson": lambda rng, f: rng.poisson(RATE * np.exp(0.5 * f)).astype(float),
    "negative_binomial": lambda rng, f: rng.poisson(RATE * np.exp(0.5 * f) * rng.gamma(2.0, 0.5, f.shape)) * 1.0,
    "zero_inflated_poisson": lambda rng, f: rng.poisson(RATE * np.exp(0.5 * f)) * (rng.random(f.shape) < 0.7) * 1.0,
}
"""Outcomes of each family given functions of the inputs: they set where the priors lie, and are then drawn anew."""

RELATIONS: dict[str, relations.Relation] = {
    "Independent": relations.Independent(),
    "Exchangeable": relations.Exchangeable(),
    "Correlated": relations.Correlated(),
    "Sparse": relations.Sparse(),
    "LowRank": relations.LowRank(),
    "Clustered": relations.Clustered(clusters=2),
}
TRUNKS: dict[str, trunks.Trunk | None] = {
    "Identity": trunks.Identity(),
    "Linear": trunks.Linear(1),
    "Fourier": trunks.Fourier(4),
    "MLP": trunks.MLP((2,)),
    "Module": None,  # a user's own torch network: its prior is a Normal around weights that are not bmtl's
}
LONGER = {"laplace": {"warmup": 600, "draws": 1000}}
"""Options of NUTS by family: where the density has an edge at every outcome chains move slowly, and ranks among draws
that hang together are not uniform."""

NO_PARTS = {"ACTIVATIONS", "FromProgram", "Gaussian", "Heads", "Relation", "Trunk"}
"""Names that `bmtl.relations`, `bmtl.trunks` and `bmtl.models` export besides parts: the prior of a program of a user's
own is theirs."""


class Case(NamedTuple):
    """A model with its parts, by name; but for `SharedTrunk` heads are independent."""

    model: str
    family: str
    relation: str
    trunk: str

    def __str__(self) -> str:
        return "/".join(self)

    def build(self) -> Any:
        """The model."""
        trunk = TRUNKS[self.trunk]
        assert trunk is not None
        if self.model == "SharedTrunk":
            return SharedTrunk(trunk, relation=RELATIONS[self.relation])
        if self.model == "CausalTasks":
            # Simulated is under one graph: here that in which every task acts on all later ones.
            return CausalTasks(trunk, EdgePrior(required=[("y0", "y1"), ("y0", "y2"), ("y1", "y2")]))
        return {"Decoupled": Decoupled, "Merged": Merged}[self.model](trunk)

    def tasks(self) -> bmtl.Tasks:
        """Example tasks, with no cell missing where tasks act on each other."""
        return example(self.family, 0.0 if self.model == "CausalTasks" else MISSING)

    def chains(self) -> dict[str, int]:
        """Options of NUTS, where its defaults are too short."""
        return LONGER.get(self.family, {})


BASE = Case("SharedTrunk", "gaussian", "Independent", "Identity")


def parts() -> tuple[tuple[str, ...], ...]:
    """Names of all models, families, relations and trunks.

    Raises
    ------
    LookupError
        If there is one without an example here.
    """
    known = {
        "family": (set(FAMILIES), set(OUTCOMES)),
        "relation": (set(relations.__all__) - NO_PARTS, set(RELATIONS)),
        "trunk": (set(trunks.__all__) - NO_PARTS, set(TRUNKS)),
    }
    for kind, (there, examples) in known.items():
        if there != examples:
            raise LookupError(f"no example of, or no longer there, {kind}: {', '.join(sorted(there ^ examples))}")
    usable = tuple(name for name, trunk in TRUNKS.items() if trunk is not None)
    models = tuple(name for name in bmtl.models.__all__ if name not in NO_PARTS)
    return models, tuple(FAMILIES), tuple(RELATIONS), usable


def cases(every: bool = False) -> list[Case]:
    """Each part in turn around `BASE`, or every combination."""
    models, families, own, usable = parts()
    if every:
        found = [Case(*names) for names in product(models, families, own, usable)]
        found = [case for case in found if case.model == "SharedTrunk" or case.relation == "Independent"]
        return [case for case in found if (case.model, case.family) != ("CausalTasks", "categorical")]
    turns = [
        *(BASE._replace(family=name) for name in families),
        *(BASE._replace(relation=name) for name in own),
        *(BASE._replace(trunk=name) for name in usable),
        *(BASE._replace(model=name, trunk="Linear") for name in models if name != BASE.model),
    ]
    return list(dict.fromkeys(turns))


def example(family: str, missing: float = MISSING) -> bmtl.Tasks:
    """Three tasks of one family, with a share of the cells missing."""
    rng = np.random.default_rng([5, *family.encode()])
    X = rng.normal(size=(ROWS, 2))
    f = X @ np.array([[1.0, 0.8, -0.3], [0.2, -0.5, 1.0]])
    Y = np.asarray(OUTCOMES[family](rng, f), dtype=float)
    Y[rng.random(Y.shape) < missing] = np.nan
    exposure = np.full(Y.shape, TRIALS) if family == "binomial" else None
    return bmtl.Tasks.from_arrays(X, Y, [family] * TASKS, exposure=exposure)


def summary(found: Calibration) -> dict[str, Any]:
    """What the table and the file say of one calibration."""
    table = found.table()
    worst = table.loc[table["p_value"].idxmin()]
    return {
        "calibrated": found.calibrated, "p": float(worst["p_value"]), "quantity": worst["quantity"],
        "p_holm": float(table["p_holm"].min()), "quantities": len(table),
        "coverage_50": float(table["coverage_50"].mean()), "coverage_89": float(table["coverage_89"].mean()),
        "ess_low": float(np.quantile(found.ess, 0.1)), "ess_min": float(found.ess.min()),
        "diverged": float(np.mean(found.diverging > 0)), "dropped": found.dropped, "simulations": found.simulations,
        "seconds": round(found.seconds, 1),
    }


def run(
    case: Case, method: str, simulations: int, seed: int, guides: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Label and summary of each calibration of a case: one by NUTS, or one a guide."""
    tasks = case.tasks()
    if method == "nuts":
        found = simulation_based_calibration(case.build(), tasks, "nuts", simulations, seed, **case.chains())
        yield "nuts", summary(found)
        return
    engine = "pyro" if method == "pyro" else "numpyro"
    for guide in guides:
        found = simulation_based_calibration(
            case.build(), tasks, "svi", simulations, seed, engine=engine, guide=guide
        )
        yield f"svi {guide} on {engine}", summary(found)


def line(label: str, found: dict[str, Any]) -> str:
    """A row of the table."""
    cover = "".join([
        f"{found['coverage_50']:8.2f}{found['coverage_89']:8.2f}{found['simulations']:6d}{found['dropped']:9d}",
        f"{found['seconds']:8.0f}",
    ])
    if label != "nuts":
        return f"  {label:30}{'':58}{cover}"
    verdict = "pass" if found["calibrated"] else "FAIL"
    return (
        f"  {label:30}{verdict:6}{found['p']:9.2g}  {found['quantity']:25}{found['ess_low']:7.0f}"
        f"{found['diverged']:9.0%}{cover}"
    )


def main() -> None:
    """Print the table, and write it if asked to."""
    parser = argparse.ArgumentParser(description="Simulation-based calibration of every model and part.")
    parser.add_argument("--simulations", type=int, default=200)
    parser.add_argument("--pyro", type=int, default=20, help="simulations of SVI on Pyro")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="every combination of parts")
    parser.add_argument("--methods", nargs="+", choices=("nuts", "svi", "pyro"), default=("nuts", "svi", "pyro"))
    parser.add_argument("--guides", nargs="+", choices=GUIDES, default=GUIDES)
    parser.add_argument("--only", default="*", help="pattern of model/family/relation/trunk")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    held = record.read(options.out).get("cases", {})
    print(
        f"{'':32}{'':6}{'p':>9}  {'quantity':25}{'ESS .1':>7}{'diverged':>9}"
        f"{'50%':>8}{'89%':>8}{'n':>6}{'dropped':>9}{'s':>8}"
    )
    for case in (case for case in cases(options.all) if fnmatch(str(case), options.only)):
        print(case, flush=True)
        for method in options.methods:
            simulations = options.pyro if method == "pyro" else options.simulations
            for label, found in run(case, method, simulations, options.seed, options.guides):
                held.setdefault(str(case), {})[label] = found
                print(line(label, found), flush=True)
        record.write(options.out, seed=options.seed, cases=held)


if __name__ == "__main__":
    main()
