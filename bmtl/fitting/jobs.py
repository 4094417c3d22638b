"""Fits that do not depend on each other, as work for whoever does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bmtl.data import Design
from bmtl.fitting.checkpoint import Checkpoint, Marks, digest
from bmtl.fitting.draws import Draws
from bmtl.fitting.progress import Progress
from bmtl.fitting.settings import NUTS, Settings
from bmtl.fitting.workers import spread
from bmtl.model import Model, specification

if TYPE_CHECKING:
    from bmtl.fitting.distributed import Ranks


@dataclass(frozen=True, eq=False)
class Job:
    """The arguments of `bmtl.fitting.fit.sample`: all that its draws depend on."""

    model: Model
    design: Design
    values: Mapping[str, np.ndarray]
    settings: Settings
    engine: str
    device: str
    seed: int
    each: Sequence[Mapping[str, np.ndarray]] | None = None
    begin: Any = None

    def parts(self) -> list[Job]:
        """Jobs that together give the same draws: of fits that would follow one another, one each.

        Those that an engine runs side by side in one program stay together.
        """
        if self.each is None or not isinstance(self.settings, NUTS):
            return [self]
        return [replace(self, each=[own]) for own in self.each]

    @property
    def key(self) -> str:
        """A name that only jobs with the same arguments have."""
        return digest(self.described())

    def described(self) -> dict[str, Any]:
        """Its arguments as nested mappings, sequences, arrays and JSON."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return own | {
            "model": specification(self.model), "settings": specification(self.settings),
            "design": [
                *self.design.structure[:1], [specification(family) for family in self.design.families],
                *self.design.structure[2:], self.design.priors(),
            ],
        }

    def run(self, progress: Progress, ranks: Ranks | None = None) -> list[Draws]:
        """Do it, alone or together with the other ranks."""
        from bmtl.fitting.fit import sample

        # Arrays that came from another process may be read-only, which torch does not accept.
        values = {name: np.require(value, requirements="W") for name, value in self.values.items()}
        return sample(
            self.model, self.design, values, self.settings, self.engine, self.device, self.seed, self.each, progress,
            self.begin, ranks,
        )


@dataclass(frozen=True, eq=False)
class Work:
    """Who fits, and what is kept of it.

    Parameters
    ----------
    progress : Progress
        Of what is done here.
    executor : Executor, optional
        Whose workers fit. Default: this process.
    checkpoint : Checkpoint, optional
        Where what is done is kept, and found.
    ranks : Ranks, optional
        Who does every job together. Only the first has a checkpoint.
    """

    progress: Progress
    executor: Executor | None = None
    checkpoint: Checkpoint | None = None
    ranks: Ranks | None = None

    def sample(self, jobs: Sequence[Job]) -> list[list[Draws]]:
        """The draws of every job, the same whoever does them."""
        apart = self.executor is not None or self.checkpoint is not None
        parts = [(place, part) for place, job in enumerate(jobs) for part in (job.parts() if apart else [job])]
        found: list[list[Draws] | None] = [None] * len(parts)
        keys: list[str] = []
        if self.checkpoint is not None:
            keys = [part.key for _, part in parts]
            found = [self.checkpoint.load(key) for key in keys]
        if self.ranks is not None:
            for job in jobs:
                self.ranks.check({name: digest(own) for name, own in job.described().items()})
            found = self.ranks.of_first(found)
        due = [number for number, own in enumerate(found) if own is None]

        def done(place: int, draws: list[Draws]) -> None:
            found[due[place]] = draws
            if self.checkpoint is not None:
                self.checkpoint.save(keys[due[place]], draws)

        shown = self.progress if self.executor is None else Progress(False)
        marks = [Marks() if self.checkpoint is None else self.checkpoint.marks(keys[number]) for number in due]
        calls = [
            (parts[number][1], replace(shown, marks=own), self.ranks) for number, own in zip(due, marks, strict=True)
        ]
        spread(Job.run, calls, self.executor, done)
        out: list[list[Draws]] = [[] for _ in jobs]
        for (place, _), own in zip(parts, found, strict=True):
            out[place] += own or []
        return out
