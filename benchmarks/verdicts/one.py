"""One problem: the advice, every arrangement's held-out score, and what others would have chosen."""

from __future__ import annotations

import time
import warnings
from itertools import combinations
from typing import Any

import bmtl
from benchmarks.verdicts import rivals
from benchmarks.verdicts.blocks import Blocks, groupings, split
from benchmarks.verdicts.problems import Problem, draw
from bmtl.arrangement import Arrangement
from bmtl.models import SharedTrunk

OPTIONS = {"restarts": 2, "learning_rate": 0.05, "batch_size": 600, "draws": 300}
"""Of all fits, of which there are thousands: a rate at which they are settled in fewer steps."""

TIE = 0.01
"""Nats an observation of held-out rows: where tasks compete for a trunk and sharing costs or brings less, both *weight*
and *decouple* are right."""

EXHAUSTIVE = 5
"""Tasks up to which all partitions into trunks are fitted."""


def run(kind: str, seed: int) -> dict[str, Any]:
    """Of a drawn problem: verdicts, scores of all approaches in nats an observation, and seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bmtl.ConvergenceWarning)
        return _run(draw(kind, seed))


def _run(problem: Problem) -> dict[str, Any]:
    tasks = problem.tasks
    start = time.perf_counter()
    model = SharedTrunk(bmtl.trunks.MLP((problem.width,)))
    advice = bmtl.advise(model, tasks, seed=0, progress=False, **OPTIONS)
    seconds = time.perf_counter() - start
    options = OPTIONS | {"trunk": advice.fit.settings.trunk}
    blocks = Blocks(tasks, problem.held, problem.width, options)
    decoupled, shared = Arrangement.decoupled(tasks.names), Arrangement.shared(tasks.names)
    scores = {
        "bmtl": blocks.mean(blocks.of(advice.arrangement)),
        "decouple": blocks.mean(blocks.of(decoupled)),
        "share": blocks.mean(blocks.of(shared)),
    }
    scores["merge"] = max((blocks.mean(blocks.of(own)) for own in _merged(tasks)), default=scores["share"])
    scores |= _rivals(problem, blocks, options)
    best = max(scores.values())
    if tasks.n_tasks <= EXHAUSTIVE:
        best = max(best, *(blocks.mean(blocks.of(own)) for own in every(tasks)))
    truth = problem.truth
    if problem.by_prediction:
        gain = scores["share"] - scores["decouple"]
        truth = dict.fromkeys(truth, "weight or decouple" if abs(gain) < TIE else "weight" if gain > 0 else "decouple")
    pairs = [
        {
            "truth": truth[frozenset((own.task_a, own.task_b))], "verdict": own.verdict,
            "p": [round(p, 4) for p in (own.p_merge, own.p_weight, own.p_decouple)],
            "joint": [round(v, 3) for v in (own.joint_correlation, own.joint_low, own.joint_high)],
            "screen": [round(p, 4) for p in (pair.p_merge, pair.p_weight, pair.p_decouple)],
        }
        for own, pair in zip(advice.pairs.itertuples(), advice.screen.pairs, strict=True)
    ]
    gain = advice.differences.query("arrangement == 'recommended'")
    return {
        "kind": problem.kind, "seed": problem.seed, "pairs": pairs, "arrangement": str(advice.arrangement),
        "verdict": advice.verdict, "probability": round(advice.probability, 4), "evidence": advice.evidence,
        "trunk": options["trunk"],
        "gain": round(float(gain["difference"].sum()), 2), "se": round(float((gain["se"] ** 2).sum() ** 0.5), 2),
        "differences": {
            name: [round(v, 2) for v in (*own["difference"], *own["se"])]
            for name, own in advice.differences.groupby("arrangement")
        },
        "scores": {name: round(value, 5) for name, value in scores.items()}, "best": round(best, 5),
        "cv": round(float(advice.tasks["elpd_recommended"].sum() / advice.tasks["n"].sum()), 5),
        "cells": int(tasks.n_cells.sum()), "seconds": round(seconds, 2),
        "all_seconds": round(time.perf_counter() - start, 2),
    }


def every(tasks: bmtl.Tasks) -> list[Arrangement]:
    """All partitions into trunks, a head each; and with pairs that are alone on a trunk as one, of either sign."""
    found = []
    for own in groupings(tasks.names):
        apart = tuple(tuple((name,) for name in group) for group in own)
        found.append(Arrangement(apart))
        for i, group in enumerate(own):
            if len(group) == 2 and _one_family(tasks, group):
                joined = (*apart[:i], (group,), *apart[i + 1 :])
                found += [Arrangement(joined), Arrangement(joined, frozenset((group[1],)))]
    return found


def _merged(tasks: bmtl.Tasks) -> list[Arrangement]:
    """All tasks as one function; of two tasks with either sign. None if their families cannot be one."""
    if not _one_family(tasks, tasks.names):
        return []
    signs = [frozenset[str](), frozenset(tasks.names[1:])] if tasks.n_tasks == 2 else [frozenset[str]()]
    return [Arrangement(((tasks.names,),), own) for own in signs]


def _one_family(tasks: bmtl.Tasks, names: tuple[str, ...]) -> bool:
    return len({tasks.families[tasks.index(name)].name for name in names}) == 1


def _rivals(problem: Problem, blocks: Blocks, options: dict[str, Any]) -> dict[str, float]:
    names = problem.tasks.names
    affinity, cosine = rivals.affinities(problem.tasks, problem.width, seed=0)
    learn, rest = split(problem.tasks, seed=0)
    tried = Blocks(learn, rest, problem.width, options)
    sets = [frozenset(own) for size in (1, 2) for own in combinations(names, size)]
    losses = {own: {name: -score for name, score in tried.together(own).items()} for own in sets}
    chosen = {
        "pairwise HOA": rivals.by_pairs(losses), "affinity": rivals.by_affinity(names, affinity),
        "gradient cosine": rivals.by_affinity(names, cosine),
    }
    return {
        rival: blocks.mean({name: blocks.together(own)[name] for name, own in serves.items()})
        for rival, serves in chosen.items()
    }
