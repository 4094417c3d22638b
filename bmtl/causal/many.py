"""The posterior over graphs of more tasks than can be summed over: candidates, chains, and when to stop them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bmtl.causal.edge_prior import Densities
from bmtl.causal.partition import Chains, Tables, r_hat, start
from bmtl.causal.scores import LocalScores
from bmtl.causal.subsets import Array

Flags = NDArray[np.bool_]

N_CHAINS = 4
N_POWERS = 10
HOTTEST = 0.1
"""Powers of the evidence, geometric from 1."""

THIN = 2
BLOCK = 400
"""Sweeps between looks at R-hat."""

FEWEST_BLOCKS, MOST_BLOCKS = 4, 12
GOAL = 1.02
KEPT_SHARE = 0.75
"""The first quarter of the sweeps is left out, of whatever number there are."""

BURN_IN = 150
"""Sweeps before candidates are extended."""

N_EXTENSIONS = 3
N_TRIED = 8
N_EXAMINED = 400
MIN_ODDS = 0.1
"""A task becomes a candidate parent where adding it to parents drawn has odds above this."""


@dataclass(frozen=True, eq=False)
class Sampled:
    """Draws from chains.

    Attributes
    ----------
    graphs : (draws, T, T) bool array
        Of all chains.
    edges : (T, T) array
        Probabilities; also of edges from tasks that are no candidates, which no graph drawn has.
    share : (densities,) array
        Posterior probability of each.
    r_hat : float
        The largest over edges and densities.
    sweeps : int
        Of each chain, those left out too.
    candidates : list of T lists of int
    """

    graphs: Flags
    edges: Array
    share: Array
    r_hat: float
    sweeps: int
    candidates: list[list[int]]


def sample(
    scores: LocalScores, log_allowed: Callable[[int, list[int]], Array], densities: Densities, may: Flags, must: Flags,
    precedes: Flags, most: int, max_parents: int, seed: int,
) -> Sampled:
    """Draws of graphs.

    Parameters
    ----------
    log_allowed : callable
        Of the subsets of a task's candidates: 0 or −∞.
    may, must : (T, T) bool arrays
        Edges allowed and required.
    precedes : (T, T) bool array
        Orders allowed.
    most : int
        Candidates of a task.
    """
    rng = np.random.default_rng(seed)
    candidates = first_candidates(scores, may, must, most)
    known: dict[int, tuple[list[int], Array]] = {}
    powers = np.geomspace(1.0, HOTTEST, N_POWERS)

    def tabulated() -> Tables:
        for v, own in enumerate(candidates):
            if v not in known or known[v][0] != own:
                known[v] = own, scores.table(v, own, max_parents)
        allowed = [log_allowed(v, own) for v, own in enumerate(candidates)]
        return Tables(candidates, [known[v][1] for v in range(len(candidates))], allowed, densities, powers)

    def begun() -> Chains:
        tables = tabulated()
        return Chains(tables, np.stack([start(tables, precedes, rng) for _ in range(N_CHAINS)]), rng)

    chains = begun()
    for _ in range(N_EXTENSIONS):
        drawn, theta, seen = [], [], []
        for i in range(BURN_IN):
            chains.sweep()
            if i >= BURN_IN // 2 and i % 5 == 0:
                drawn.append(chains.turned())
                theta.append(chains.theta())
                seen.append(chains.edge_probabilities().mean(axis=0))
        graphs, edges = np.concatenate(drawn), np.mean(seen, axis=0)
        extended = _extended(scores, may, must, candidates, graphs, np.concatenate(theta), edges, most, max_parents)
        if extended == candidates:
            break
        candidates = extended
        chains = begun()
    drawn, theta, seen = [], [], []
    for block in range(MOST_BLOCKS):
        for i in range(BLOCK):
            chains.sweep()
            if i % THIN == 0:
                drawn.append(chains.turned())
                theta.append(chains.theta())
                given = chains.edge_probabilities().reshape(N_CHAINS, -1), chains.density_probabilities()
                seen.append(np.hstack(given).astype(np.float32))
        kept = int(KEPT_SHARE * len(seen))
        probability = np.stack(seen[-kept:], axis=1)
        worst = r_hat(probability)
        if worst <= GOAL and block + 1 >= FEWEST_BLOCKS:
            break
    graphs = np.concatenate(drawn[-kept:])
    edges, share = np.split(probability.mean(axis=(0, 1), dtype=float), [may.size])
    edges = edges.reshape(may.shape)
    edges = _with_others(scores, may, candidates, graphs, np.concatenate(theta[-kept:]), edges, max_parents)
    return Sampled(graphs, edges, share, worst, THIN * len(seen), candidates)


def first_candidates(scores: LocalScores, may: Flags, must: Flags, most: int) -> list[list[int]]:
    """For each task its likeliest parents and children, by forward selection and by what each tells alone."""
    n = len(may)
    wanted: list[dict[int, float]] = []
    for v in range(n):
        chosen = [int(u) for u in np.flatnonzero(must[:, v])]
        found = dict.fromkeys(chosen, np.inf)
        alone = scores.gains(v, [], [u for u in range(n) if u != v])
        for _ in range(most // 2):
            rest = [u for u in range(n) if u != v and u not in chosen]
            gains = scores.gains(v, chosen, rest)
            best = max(gains, key=lambda u: gains[u], default=-1)
            if best < 0 or gains[best] <= 0:
                break
            chosen.append(best)
            # What is chosen given others counts before what tells something alone.
            found[best] = 1e6 + gains[best]
        for u, gain in alone.items():
            found.setdefault(u, gain)
        wanted.append(found)
    out = []
    for v in range(n):
        # An edge may be turned round: what has v as a likely parent is a candidate parent of v.
        score = {u: max(wanted[v][u], min(wanted[u].get(v, -np.inf), 1e9)) for u in wanted[v] if may[u, v]}
        out.append(sorted(sorted(score, key=lambda u: -score[u])[:most]))
    return out


def _extended(
    scores: LocalScores, may: Flags, must: Flags, candidates: list[list[int]], graphs: Flags, theta: Array,
    edges: Array, most: int, max_parents: int,
) -> list[list[int]]:
    """Candidates with those that would be likely parents beside parents drawn, in place of the unlikeliest."""
    out = []
    for v, own in enumerate(candidates):
        outside = [int(u) for u in np.flatnonzero(may[:, v]) if u not in own]
        # Whether there would be a cycle does not matter: the edge may be there the other way round.
        odds = _odds(scores, v, outside, graphs, np.tile(theta[:, None], len(may)), max_parents)
        new = sorted((u for u in outside if odds[u] > MIN_ODDS), key=lambda u: -odds[u])
        keep = sorted(own, key=lambda u: -(np.inf if must[u, v] else edges[u, v] + edges[v, u]))
        # Half of the places at the most change at once.
        new = new[: most // 2]
        out.append(sorted([*keep[: most - len(new)], *new]))
    return out


def _odds(
    scores: LocalScores, v: int, outside: list[int], graphs: Flags, factor: Array, max_parents: int
) -> dict[int, float]:
    """Odds of each of some tasks as one more parent of v, over the sets of parents drawn most often.

    ``factor`` (draws, T) says what the edge counts a priori in a graph drawn: 0 where the task may not become a parent.
    """
    odds = dict.fromkeys(outside, 0.0)
    parents, which, counts = np.unique(graphs[:, :, v], axis=0, return_inverse=True, return_counts=True)
    for i in np.argsort(-counts, kind="stable")[:N_TRIED] if outside else []:
        given = [int(u) for u in np.flatnonzero(parents[i])]
        if len(given) >= max_parents:
            continue
        here, mean = scores.one(v, given), factor[which.ravel() == i].sum(axis=0) / len(graphs)
        for u in outside:
            gain = scores.one(v, [*given, u]) - here
            odds[u] += float(mean[u] * np.exp(min(gain, 50.0)))
    return odds


def _with_others(
    scores: LocalScores, may: Flags, candidates: list[list[int]], graphs: Flags, theta: Array, edges: Array,
    max_parents: int,
) -> Array:
    """Edge probabilities with those of tasks that are no candidates, as one more parent of v in the graphs drawn."""
    every = slice(None, None, max(1, len(graphs) // N_EXAMINED))
    some, theta = graphs[every], theta[every]
    reach = some | np.eye(len(may), dtype=bool)
    for _ in range(int(np.ceil(np.log2(len(may))))):
        reach = (reach.astype(np.float32) @ reach.astype(np.float32)) > 0
    out = edges.copy()
    for v, own in enumerate(candidates):
        outside = [int(u) for u in np.flatnonzero(may[:, v]) if u not in own]
        odds = _odds(scores, v, outside, some, theta[:, None] * ~reach[:, v], max_parents)
        whole = 1.0 + sum(odds.values())
        for u in outside:
            out[u, v] = odds[u] / whole
    return out
