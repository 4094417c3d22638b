"""Which networks to train, and which tasks each of them serves, under a budget: for loss tables of one's own.

Standley, Zamir, Chen, Guibas, Malik & Savarese, "Which tasks should be learned together in multi-task learning?", ICML
2020. A network is trained on a set of tasks, at a cost, and has a loss for each of them; a task is served by the chosen
network with its smallest loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

Array = NDArray[np.float64]
Losses = Mapping[frozenset[str], Mapping[str, Any]]
TIE = 1e-9
"""Relative difference of total losses that is none."""

MOST_DRAWS = 200
"""Draws of the losses at which the best choice is looked for again, evenly spread."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network that could be trained.

    Parameters
    ----------
    tasks : frozenset of str
        What it is trained on.
    losses : mapping of str to float or array of shape (draws,)
        Loss of each of them, or draws from its posterior.
    cost : float
        ≥ 0.
    """

    tasks: frozenset[str]
    losses: Mapping[str, Any]
    cost: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", frozenset(self.tasks))
        named = ", ".join(sorted(self.tasks))
        if not self.tasks:
            raise ValueError("a candidate needs a task")
        if missing := sorted(self.tasks - set(self.losses)):
            raise ValueError(f"the candidate {{{named}}} has no loss for {', '.join(missing)}")
        if bad := sorted(t for t in self.tasks if not np.all(np.isfinite(np.asarray(self.losses[t], dtype=float)))):
            raise ValueError(f"the candidate {{{named}}} has losses that are not finite for {', '.join(bad)}")
        if not (np.isfinite(self.cost) and self.cost >= 0):
            raise ValueError(f"the candidate {{{named}}} needs a finite cost ≥ 0, got {self.cost}")


@dataclass(frozen=True, eq=False)
class Grouping:
    """A choice of networks.

    Attributes
    ----------
    networks : tuple of Candidate
        Those to train, largest first.
    serves : dict
        Task to the network that serves it.
    loss : float
        Sum over tasks of the (mean) loss of the network that serves it.
    cost : float
        Of all networks.
    probability : float
        Share of the draws of the losses at which no affordable choice is better; NaN where losses are single numbers.
    """

    networks: tuple[Candidate, ...]
    serves: dict[str, Candidate]
    loss: float
    cost: float
    probability: float

    @property
    def groups(self) -> tuple[frozenset[str], ...]:
        """The tasks that each network serves, in the order of `networks`."""
        return tuple(frozenset(t for t, own in self.serves.items() if own is network) for network in self.networks)

    def table(self) -> pd.DataFrame:
        """Columns task, network (what it is trained on), loss."""
        rows = [(t, ", ".join(sorted(own.tasks)), float(np.mean(own.losses[t]))) for t, own in self.serves.items()]
        return pd.DataFrame(rows, columns=["task", "network", "loss"])


def search(
    losses: Losses | Iterable[Candidate],
    budget: float,
    cost: Mapping[frozenset[str], float] | Callable[[frozenset[str]], float] | None = None,
) -> Grouping:
    """The networks with the least total loss that the budget allows and that serve every task.

    Exact: branch and bound over all choices (HiGHS, by way of scipy). Of choices with equal losses the cheapest.

    Parameters
    ----------
    losses : mapping of frozenset of str to mapping of str to float or array; or sequence of Candidate
        For each set of tasks trained together the loss of each, or draws from its posterior. As candidates, one set
        may stand several times, at different costs.
    budget : float
        Most that all networks together may cost.
    cost : mapping or callable, optional
        Cost of training a set. Default: 1 each. Not for candidates, which have their own.

    Raises
    ------
    ValueError
        If there is no candidate, a cost is missing, numbers of draws differ, or the budget does not serve every task;
        the message says what would.

    Examples
    --------
    >>> from bmtl import grouping
    >>> a, b, ab = frozenset("a"), frozenset("b"), frozenset("ab")
    >>> grouping.search({a: {"a": 1.0}, b: {"b": 1.0}, ab: {"a": 0.9, "b": 1.2}}, budget=2).groups
    (frozenset({'a'}), frozenset({'b'}))
    """
    candidates = _candidates(losses, cost)
    names = sorted(set().union(*(own.tasks for own in candidates)))
    table = _table(candidates, names)
    costs = np.array([own.cost for own in candidates])
    least = _cheapest(np.isfinite(table[0]), costs)
    if least > budget * (1 + TIE):
        raise ValueError(f"a budget of {budget:g} does not serve every task: the cheapest choice costs {least:g}")
    mean = table.mean(axis=0)
    chosen, loss = _best(mean, costs, budget)
    probability = float("nan")
    if len(table) > 1:
        some = table[np.unique(np.linspace(0, len(table) - 1, min(len(table), MOST_DRAWS)).astype(int))]
        own = [np.min(one[:, chosen], axis=1).sum() for one in some]
        best = [_best(one, costs, budget)[1] for one in some]
        probability = float(np.mean([mine <= other + TIE * abs(other) for mine, other in zip(own, best, strict=True)]))
    server = chosen[np.argmin(mean[:, chosen], axis=1)]
    # A network that serves nobody is not trained.
    used = sorted(set(server), key=lambda c: (-len(candidates[c].tasks), sorted(candidates[c].tasks)))
    return Grouping(
        networks=tuple(candidates[c] for c in used),
        serves={name: candidates[c] for name, c in zip(names, server, strict=True)},
        loss=loss,
        cost=float(costs[used].sum()),
        probability=probability,
    )


def higher_order(losses: Losses, draws: int | None = None, seed: int = 0) -> dict[frozenset[str], dict[str, Any]]:
    """Losses of larger sets from those of pairs: "higher-order approximation" (Standley et al. 2020, section 4.3).

    The loss of task a in a set is the mean of its losses beside each of the others. With ``draws``, instead of that
    mean its posterior: the losses of a task beside each other task scatter around that of the set with a variance v
    common to all tasks, and p(v) ∝ 1/v is updated by their scatter within tasks.

    Parameters
    ----------
    losses : mapping of frozenset of str to mapping of str to float
        Of all pairs. Sets of other sizes are kept as they are.
    draws : int, optional
        Posterior draws of each loss. Default: the mean alone.
    seed : int

    Returns
    -------
    dict
        All sets of up to all tasks, pairs and the given ones unchanged (repeated where there are draws); `search`
        takes it.

    Raises
    ------
    ValueError
        If a pair or one of its losses is missing, or there are fewer than three tasks.
    """
    names = sorted(set().union(*losses))
    if len(names) < 3:
        raise ValueError(f"sets larger than pairs need three tasks, got {len(names)}")
    missing = [pair for pair in combinations(names, 2) if not set(pair) <= set(losses.get(frozenset(pair), ()))]
    if missing:
        raise ValueError(f"losses of these pairs are missing: {', '.join(' · '.join(pair) for pair in missing[:5])}")
    beside = np.full((len(names), len(names)), np.nan)
    for i, j in combinations(range(len(names)), 2):
        pair = losses[frozenset((names[i], names[j]))]
        beside[i, j], beside[j, i] = pair[names[i]], pair[names[j]]
    out: dict[frozenset[str], dict[str, Any]] = {}
    rng = np.random.default_rng(seed)
    squares = np.nansum((beside - np.nanmean(beside, axis=1, keepdims=True)) ** 2)
    freedom = len(names) * (len(names) - 2)
    sd = None if draws is None else np.sqrt(squares / rng.chisquare(freedom, draws))
    for size in range(1, len(names) + 1):
        for members in combinations(range(len(names)), size):
            group = frozenset(names[i] for i in members)
            if group in losses:
                own = {name: float(losses[group][name]) for name in sorted(group)}
                out[group] = own if draws is None else {t: np.full(draws, value) for t, value in own.items()}
            elif size > 2:
                out[group] = {}
                for i in members:
                    mean = float(np.mean([beside[i, j] for j in members if j != i]))
                    error = 0.0 if sd is None else sd * rng.normal(size=draws) / np.sqrt(size - 1)
                    out[group][names[i]] = mean + error
    return out


def _candidates(losses: Losses | Iterable[Candidate], cost: Any) -> Sequence[Candidate]:
    if not isinstance(losses, Mapping):
        found = list(losses)
        if cost is not None:
            raise ValueError("candidates have costs of their own: give no cost beside them")
        if other := [own for own in found if not isinstance(own, Candidate)]:
            raise ValueError(f"losses must be a mapping or a sequence of Candidate, got {other[0]!r}")
    else:
        found = []
        for tasks, own in losses.items():
            if isinstance(cost, Mapping) and tasks not in cost:
                raise ValueError(f"no cost of {{{', '.join(sorted(tasks))}}}")
            price = 1.0 if cost is None else cost[tasks] if isinstance(cost, Mapping) else cost(tasks)
            found.append(Candidate(tasks, own, price))
    if not found:
        raise ValueError("no candidates given")
    return found


def _table(candidates: Sequence[Candidate], names: Sequence[str]) -> Array:
    """Losses, ``draws × tasks × candidates``; infinite where a candidate does not know a task."""
    counts = {np.size(own.losses[t]) for own in candidates for t in own.tasks}
    if len(counts - {1}) > 1:
        raise ValueError(f"all losses need as many draws each, got {sorted(counts - {1})}")
    table = np.full((max(counts), len(names), len(candidates)), np.inf)
    for c, own in enumerate(candidates):
        for t, name in enumerate(names):
            if name in own.tasks:
                table[:, t, c] = own.losses[name]
    return table


def _solve(gain: Array, whole: Array, limits: Sequence[LinearConstraint]) -> tuple[Array, float]:
    """Variables in [0, 1] with the least gain, those marked whole being 0 or 1, to the optimum."""
    found: Any = milp(
        gain, integrality=whole.astype(int), bounds=Bounds(0, 1), constraints=limits, options={"mip_rel_gap": 0.0}
    )
    if found.x is None:
        raise RuntimeError(f"the choice of networks could not be solved: {found.message}")
    return np.asarray(found.x), float(found.fun)


def _cheapest(serves: NDArray[np.bool_], costs: Array) -> float:
    """Least cost of a choice in which every task is served."""
    return _solve(costs, np.ones(len(costs)), [LinearConstraint(serves.astype(float), lb=1)])[1]


def _best(losses: Array, costs: Array, budget: float) -> tuple[NDArray[np.intp], float]:
    """Chosen candidates, and their total loss.

    Whether candidate c is chosen is y_c, and whether it serves task t is x_tc ≤ y_c: facility location.
    """
    n_tasks, n = losses.shape
    task, server = np.nonzero(np.isfinite(losses))
    m = len(task)
    # Shifted, for the solver's tolerances are absolute as well: every task is served exactly once.
    shift = losses[np.isfinite(losses)].min()
    scale = max(losses[np.isfinite(losses)].max() - shift, TIE)
    gain = np.concatenate([np.zeros(n), (losses[task, server] - shift) / scale])
    once, opened = np.zeros((n_tasks, n + m)), np.zeros((m, n + m))
    once[task, n + np.arange(m)] = 1.0
    opened[np.arange(m), n + np.arange(m)] = 1.0
    opened[np.arange(m), server] = -1.0
    spent = np.concatenate([costs, np.zeros(m)])
    limits = [
        LinearConstraint(once, 1, 1), LinearConstraint(opened, ub=0), LinearConstraint(spent, ub=budget * (1 + TIE))
    ]
    whole = np.concatenate([np.ones(n), np.zeros(m)])
    first, least = _solve(gain, whole, limits)
    # Of all choices that are as good, the cheapest.
    second, _ = _solve(spent, whole, [*limits, LinearConstraint(gain, ub=least + 1e-7)])
    candidates = [np.flatnonzero(own[:n] > 0.5) for own in (first, second)]
    totals = [np.min(losses[:, own], axis=1).sum() for own in candidates]
    pick = int(totals[1] <= totals[0] + TIE * abs(totals[0]))
    return candidates[pick], float(totals[pick])
