"""Is it the tasks that cannot share, or is the trunk too narrow for them?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bmtl.advice import reasons
from bmtl.advice.confirm import Trial, Trials
from bmtl.advice.decide import SLIGHT, harmed_by, total
from bmtl.arrangement import Arrangement
from bmtl.trunks import Trunk

TIMES = 4
"""How many times as wide a trunk is tried where sharing the given one does harm."""


@dataclass(frozen=True)
class Wider:
    """What sharing does on a wider trunk to tasks that it harms on the given one.

    Attributes
    ----------
    trunk : Trunk
        The wider one.
    tasks : tuple of str
        Those that are harmed by sharing the given one.
    still : tuple of str
        Those that are harmed, and not slightly, by sharing the wider one.
    before, after : tuple of float
        What sharing does to ``tasks``, against a trunk each of the same width: nats an observation, mean over them,
        and its paired standard error, on the given trunk and on the wider one.
    """

    trunk: Trunk
    tasks: tuple[str, ...]
    still: tuple[str, ...]
    before: tuple[float, float]
    after: tuple[float, float]

    @property
    def enough(self) -> bool:
        """Whether the wider trunk lets them share."""
        return not self.still

    @property
    def says(self) -> str:
        return reasons.of_width(self.tasks, self.still, TIMES, repr(self.trunk), self.before, self.after)


def widen(
    trials: Trials, together: Arrangement, decoupled: Arrangement, among: Sequence[str], protect: Sequence[str]
) -> Wider | None:
    """Try a wider trunk of the same kind, where sharing the given one harms any of some tasks.

    None if it harms none of them, the trunk has no width, or the wider fit does not converge. Harm is judged as
    everywhere, against a trunk each: of the same width, and of the given one where the evidence is of one kind. What is
    slight beside the worst harm on the given trunk is none on the wider one, unless to a protected task.
    """
    shared, apart = trials.run([together, decoupled])
    harmed = [own for own in harmed_by(shared, apart, protect) if own in among]
    trunk: Any = getattr(trials.model, "trunk", None)
    if not harmed or not hasattr(trunk, "wider"):
        return None
    wide = trials.of(replace(trials.model, trunk=trunk.wider(TIMES)))
    wide_shared, wide_apart = wide.run([together, decoupled])
    if wide.fit(together).problems:
        return None
    names = trials.tasks.names
    slight = SLIGHT * min(_gains(shared, apart)[[names.index(own) for own in harmed]])
    still = {
        own
        for other in (wide_apart, apart) if other.evidence == wide_shared.evidence
        for own in harmed_by(wide_shared, other, protect)
        if own in protect or _gains(wide_shared, other)[names.index(own)] < slight
    }
    return Wider(
        wide.model.trunk, tuple(harmed), tuple(own for own in names if own in still),
        _each(shared, apart, harmed), _each(wide_shared, wide_apart, harmed),
    )


def _gains(shared: Trial, apart: Trial) -> np.ndarray:
    """What sharing gains each task an observation."""
    gains: np.ndarray = shared.over(apart)[0] / np.array([len(own) for own in shared.rows])
    return gains


def _each(shared: Trial, apart: Trial, names: Sequence[str]) -> tuple[float, float]:
    """Mean gain of sharing over some tasks, nats an observation, and its paired standard error."""
    among = np.isin(shared.tasks.names, names)
    return total(shared, apart, among / among.sum() / np.array([len(own) for own in shared.rows]))


def told(wider: Wider | None, together: Arrangement, names: Sequence[tuple[str, ...]], why: Any) -> Any:
    """Reasons of tasks or pairs with what the wider trunk says, where it bears on them."""
    if wider is None:
        return why
    out = []
    for own, text in zip(names, why, strict=True):
        a, b = own[0], own[-1]
        concerned = set(own) & set(wider.tasks) and (a == b or together.relation(a, b) != "decouple")
        out.append(f"{text} {wider.says}" if concerned else text)
    return out
