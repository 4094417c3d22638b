"""Proteins: which acts on which, and what do interventions add to watching?

Eleven proteins and phospholipids were measured at once in single human T cells: untouched, and under reagents that
set one of them or act on others (Sachs et al. 2005). Much is known of what acts on what: the 17 edges that the authors
found are compared with, and not used.

* *Watching.* From cells that were only activated, the posterior over graphs finds some of the pairs; of many of those
  it cannot tell which way the edge points.
* *Trusting the labels.* All conditions pooled, each reagent taken to act on what it is said to set and on nothing else:
  the posterior is sure of dozens of edges, most of them wrong. The assumption is what is refuted.
* *Interventions that may reach further.* The same marks, but every condition may also act on any other protein: fewer
  edges, closer to the known ones than the other two, and more of them point the right way.

How much of that is chance is asked by giving the proteins of the known graph each other's names, a thousand times.

Amounts are positive and vary by factors: lognormal tasks, linear in logarithms.

Data: case_studies/data/sachs.csv.gz and sachs_graphs.csv (see sachs.md beside them).

    python case_studies/proteins.py [--quick] [--report out/proteins.html]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import bmtl
from bmtl.causal import DagPosterior, Effects, dag_posterior, effects
from bmtl.report import graph, study
from bmtl.report.style import COLOURS, make

DATA = Path(__file__).parent / "data"
SETS = {"aktinhib": "akt", "g0076": "pkc", "psitect": "pip2", "pma": "pkc", "b2camp": "pka"}
"""What a reagent sets, by condition."""

UNTARGETED, NOT_ACTIVATED = ("icam2", "u0126", "ly"), ("pma", "b2camp")
LEAST = 0.05
"""Probability from which an edge is listed."""

SURE = 0.9

WATCHING, TRUSTING, REACHING = "Watching", "Trusting the labels", "Interventions that may reach further"
TEXT = {
    WATCHING: "853 cells that were only activated.",
    TRUSTING: "7,466 cells of nine conditions, a reagent acting on what it is said to set and on nothing else.",
    REACHING: "The same cells, with conditions as inputs that may act on every other protein.",
}
ANSWER = "Interventions show directions, if they are allowed to reach further than their labels say."
NUMBERS = (
    "Expected numbers of edges; how many have a probability above .9, and how many of these are known; expected "
    "structural Hamming distance to the 17 that are known; and how often relabelled proteins are as close."
)
KEY = "Green: as known. Red: known reversed. Grey: not known. Broken: below one half. No number: above .99."
CAPTION = f"Edges of probability {LEAST} or more, or among the 17 that are known; 20 were expected before."


def cells() -> tuple[pd.DataFrame, list[str]]:
    """Cells with their conditions, and the proteins."""
    frame = pd.read_csv(DATA / "sachs.csv.gz")
    return frame, [name for name in frame if name != "condition"]


def references(proteins: list[str]) -> dict[str, pd.DataFrame]:
    """Graphs to compare with, proteins × proteins: the 17 edges found, and the 20 reported before."""
    edges = pd.read_csv(DATA / "sachs_graphs.csv")
    found = {}
    for name in ("found", "reported"):
        own = edges[edges[name] == 1]
        table = pd.DataFrame(False, index=proteins, columns=proteins)
        for cause, effect in zip(own["cause"], own["effect"], strict=True):
            table.loc[cause, effect] = True
        found[name] = table
    return found


def observational() -> bmtl.Tasks:
    """Cells that were only activated: outcomes without an input."""
    frame, proteins = cells()
    return bmtl.Tasks.from_frame(frame[frame["condition"] == "cd3cd28"], [], dict.fromkeys(proteins, "lognormal"))


def nine(*, anywhere: bool) -> bmtl.Tasks:
    """Cells of all conditions, with the cells marked that a reagent set, which may act on other molecules or not."""
    frame, proteins = cells()
    condition = frame["condition"]
    names = condition.unique()[1:] if anywhere else UNTARGETED
    inputs = {name: condition == name for name in names}
    if not anywhere:
        inputs["activated"] = ~condition.isin(NOT_ACTIVATED)
    marks = {
        protein: condition.isin([name for name, own in SETS.items() if own == protein]).to_numpy()
        for protein in set(SETS.values())
    }
    outputs = dict.fromkeys(proteins, "lognormal")
    return bmtl.Tasks.from_frame(frame.assign(**inputs), list(inputs), outputs, intervened=marks)


def listed(found: DagPosterior) -> pd.DataFrame:
    """Every edge that is not improbable or is among the 17, and whether references have it."""
    graphs, rows = references(list(found.names)), []
    for cause in found.names:
        for effect in found.names:
            p = float(found.edges.loc[cause, effect])
            if cause != effect and (p >= LEAST or graphs["found"].loc[cause, effect]):
                rows.append((cause, effect, p, *(known(own, cause, effect) for own in graphs.values())))
    edges = pd.DataFrame(rows, columns=["cause", "effect", "p", "in the 17", "in the 20"])
    return edges.sort_values("p", ascending=False, kind="stable", ignore_index=True)


def known(reference: pd.DataFrame, cause: str, effect: str) -> str:
    """What a reference has of an edge: yes, reversed or no."""
    return "yes" if reference.loc[cause, effect] else "reversed" if reference.loc[effect, cause] else "no"


def distance(p: np.ndarray, truth: np.ndarray) -> float:
    """Expected structural Hamming distance to a graph: pairs that are not joined as they are there."""
    right = np.where(truth, p, np.where(truth.T, p.T, 1 - p - p.T))
    return float(np.sum(np.triu(1 - right, 1)))


def chance(p: np.ndarray, truth: np.ndarray, relabelled: int) -> float:
    """Share of references with their proteins relabelled at random that are no further away than the true one."""
    rng, own = np.random.default_rng(0), distance(p, truth)
    orders = (rng.permutation(len(p)) for _ in range(relabelled))
    close = sum(distance(p, truth[np.ix_(order, order)]) <= own + 1e-9 for order in orders)
    return (1 + close) / (1 + relabelled)


def summary(posteriors: dict[str, DagPosterior], relabelled: int) -> pd.DataFrame:
    """One row an analysis: expected numbers of edges, by what the 17 have of them, and the distance to the 17."""
    rows = []
    for name, found in posteriors.items():
        p, truth = found.edges.to_numpy(), references(list(found.names))["found"].to_numpy()
        sure = p > SURE
        rows.append({
            "analysis": name, "edges": p.sum(), "right": p[truth].sum(),
            "reversed": p[truth.T].sum(), "not among the 17": p[~truth & ~truth.T].sum(),
            "sure": int(sure.sum()), "of these right": int((sure & truth).sum()),
            "distance": distance(p, truth), "by chance": chance(p, truth, relabelled),
        })
    return pd.DataFrame(rows)


def wired(found: Effects) -> pd.DataFrame:
    """Edges that are sure: cause, effect, p, slope (a power) with its 89 % interval, and whether the 17 have it."""
    edges = found.edges()
    edges = edges.loc[edges["p"] > SURE, ["cause", "effect", "p", "slope", "slope_low", "slope_high"]]
    truth = references(list(found.tasks.names))["found"]
    marks = [known(truth, a, b) for a, b in zip(edges["cause"], edges["effect"], strict=True)]
    return edges.assign(**{"in the 17": marks})


def picture(found: DagPosterior) -> Figure:
    """The posterior, its edges coloured by what the 17 have of them."""
    truth = references(list(found.names))["found"]
    colour = {"yes": COLOURS["weight"], "reversed": COLOURS["decouple"], "no": COLOURS["undecided"]}
    colours = {(a, b): colour[known(truth, a, b)] for a in found.names for b in found.names}
    return make(graph.draw, graph.size(found.edges), found.edges, "Edges with their probabilities", colours)


def main() -> tuple[pd.DataFrame, pd.DataFrame]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--quick", action="store_true", help="200 relabelled graphs instead of 1,000, 100 drawn instead of 500"
    )
    parser.add_argument("--report", type=Path, default=Path("out/proteins.html"))
    arguments = parser.parse_args()
    start = time.perf_counter()
    tasks = {WATCHING: observational(), TRUSTING: nine(anywhere=False), REACHING: nine(anywhere=True)}
    posteriors = {name: dag_posterior(own) for name, own in tasks.items()}
    table = summary(posteriors, 200 if arguments.quick else 1000)
    print(f"Edges expected, against the 17 that are known\n{table.round(3).to_string(index=False)}\n")
    sure = wired(effects(tasks[REACHING], posteriors[REACHING], graphs=100 if arguments.quick else 500, seed=0))
    print(f"Edges of probability {SURE} or more: {REACHING}\n{sure.round(2).to_string(index=False)}\n")
    rows = {row["analysis"]: row for row in table.to_dict("records")}
    lines = [
        f"{name}: {row['edges']:.1f} edges expected, {row['right']:.1f} of them as known, {row['reversed']:.1f} "
        f"reversed, at a distance of {row['distance']:.1f} from the 17 (no edges at all: 17), which a graph with its "
        f"proteins relabelled reaches with p = {row['by chance']:.3f}."
        for name, row in rows.items()
    ]
    print(*lines, sep="\n")
    arguments.report.parent.mkdir(parents=True, exist_ok=True)
    study.write(
        arguments.report, "Which protein acts on which, and what do interventions add?", [ANSWER, *lines],
        [
            study.Section("Three ways to see it", table=table, caption=NUMBERS),
            *(
                study.Section(name, TEXT[name], listed(found), CAPTION, picture(found), graph.said(found.edges), KEY)
                for name, found in posteriors.items()
            ),
            study.Section(
                "How strong", f"{REACHING}. Slopes are powers: a protein that doubles multiplies the other by two to "
                "the slope.", sure, f"Edges of probability {SURE} or more, with central 89 % intervals.",
            ),
        ],
    )
    print(f"Report: {arguments.report} ({time.perf_counter() - start:.0f} s)")
    return table, sure


if __name__ == "__main__":
    main()
