"""Pyro programs of one's own.

Such a program knows of one run or draw only. Log densities of several are computed at once by `torch.vmap`, unless the
program says that it cannot; random outcomes are drawn one after another, as torch has no batched form of all draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch
from pyro.poutine import condition, trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample

from bmtl.data import Data
from bmtl.engine.own import PlayedProgram, TaskSites
from bmtl.engine.score import Score


class Sites(TaskSites, Messenger):
    """A handler of Pyro's messages."""

    def _pyro_sample(self, msg: Any) -> None:
        if not site_is_subsample(msg):
            self.at_site(msg)
        elif (msg["fn"].subsample_size or msg["fn"].size) < msg["fn"].size:
            raise ValueError(f"the plate {msg['name']!r} subsamples, but bmtl draws the minibatches: give it all rows")

    def _pyro_param(self, msg: Any) -> None:
        self.at_param(msg["name"])


def joint(e: Any, model: Any, data: Data) -> None:
    """Run a program with its outcomes observed, or add its log density to a `Score`."""
    if not isinstance(e, Score):
        model.run(data, Sites(data))
        return
    dims = 2 if data.task is None else 1
    apart = {
        name: value for name, value in data.values.items()
        if name.startswith(("y/", "mask/", "exposure/")) and value.ndim > dims
    }

    def one(values: Mapping[str, Any]) -> Any:
        held = replace(data, values={**data.values, **{name: values[name] for name in apart}})
        with trace() as found, condition(data=dict(values)):
            model.run(held, Sites(held))
        drawn = {name for name, site in found.trace.iter_stochastic_nodes() if not site_is_subsample(site)}
        if some := sorted(drawn | (values.keys() - apart.keys() - found.trace.nodes.keys())):
            raise ValueError(f"all latent sites must be there at all values, but {some} are at some only")
        return found.trace.log_prob_sum()

    e.each(partial(_each, model, one), apart)


class Played(PlayedProgram):
    """Log densities of all draws at once, new outcomes of one draw after another."""

    @cached_property
    def log_prob(self) -> Any:
        def one(draw: Mapping[str, Any]) -> Any:
            return self._read(draw, lambda msg: msg["fn"].log_prob(msg["value"]), given=True)

        return _each(self.model, one, self.draws)

    @property
    def mean(self) -> Any:
        return self._drawn[:, 0]

    def new(self, key: Any) -> Any:
        """By torch's global generator; the same at every call."""
        return self._drawn[:, 1]

    @cached_property
    def _drawn(self) -> Any:
        """Means of outcomes and outcomes, ``draws × 2 × T × rows``."""
        def one(draw: Mapping[str, Any]) -> Any:
            return self._read(draw, lambda msg: torch.stack([msg["fn"].mean, msg["value"]]), given=False)

        return torch.stack([one(draw) for draw in _apart(self.draws)])

    def _read(self, draw: Mapping[str, Any], read: Callable[[Any], Any], given: bool) -> Any:
        sites = Sites(self.data, given)
        with condition(data=dict(draw)):
            self.model.run(self.data, sites)
        return torch.stack([read(sites.found[name]) for name in self.data.design.names], dim=-2)


def _each(model: Any, one: Callable[[Mapping[str, Any]], Any], values: dict[str, Any]) -> Any:
    """What a function gives for each index along the first dimension of tensors.

    Raises
    ------
    ValueError
        If that is to be done at once, and the program cannot.
    """
    if not model.vectorised:
        return torch.stack([one(own) for own in _apart(values)])
    try:
        return torch.vmap(one)(values)
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        reason = str(error).split("\n")[0].split(". ")[0]
        raise ValueError(
            f"the program cannot be run at several values at once ({reason}): give FromProgram(..., vectorised=False)"
        ) from error


def _apart(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tensors of each index along the first dimension."""
    return [dict(zip(values, own, strict=True)) for own in zip(*values.values(), strict=True)]
