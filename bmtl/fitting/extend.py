"""Tasks added to a fitted trunk, with everything that was fitted left as it is.

The new heads θ' are inferred given the trunk θ at its posterior, ``p(θ | old outcomes) p(θ' | θ, new outcomes)``: a cut
posterior (Plummer, "Cuts in Bayesian graphical models", Statistics and Computing, 2015), in which the new outcomes
teach the heads and not the trunk. Given θ the features are known numbers and a new head is a regression on them. It has
a guide of its own for each draw of θ, so that heads and trunk vary together; one guide, where the trunk is a point.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from bmtl import data as arrays_of
from bmtl import replay
from bmtl._frames import quoted
from bmtl._inputs import inputs_like
from bmtl.arrangement import Arrangement
from bmtl.data import Design
from bmtl.errors import ConvergenceWarning, FitError, TaskError
from bmtl.fitting.draws import Draws
from bmtl.fitting.numpyro_svi import NumPyroSVI, Run
from bmtl.fitting.progress import Progress
from bmtl.fitting.settings import MAP, SVI
from bmtl.fitting.settling import Settling, chunks
from bmtl.model import in_trunk, noise_site
from bmtl.noise import ByGroup, Common
from bmtl.relations import Independent
from bmtl.tasks import Tasks
from bmtl.trunks import Identity

if TYPE_CHECKING:
    from bmtl.results import Fit

OPTIONS = ("guide", "max_steps", "batch_size", "learning_rate")
"""What may be chosen of how the new heads are fitted."""

FEATURES_AT_ONCE = 20_000_000
"""Draws × rows × features whose heads are fitted side by side."""


def extend(
    fit: Fit, tasks: Tasks, beside: str | None, seed: int, progress: bool | None, options: Mapping[str, Any]
) -> Fit:
    """A fit with more tasks; see `Fit.extend`."""
    start = time.perf_counter()
    if fit.powers:
        raise TypeError(f"extend adds tasks to a posterior, and this is a {fit.target}")
    model = _able(fit.model)
    settings = _settings(fit, options)
    twice = [name for name in tasks.names if name in fit.tasks.names]
    if twice:
        raise TaskError(f"already in the fit: {quoted(twice)}")
    arrangement, home = _arranged(fit.arrangement, tasks.names, beside)
    inputs = inputs_like(fit.tasks, tasks)
    joint = _union(fit.tasks, tasks, inputs)

    flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in fit.draws.sites.items() if in_trunk(name)}
    n_draws = int(np.prod(fit.draws.shape))
    if all(np.all(value == value[:1]) for value in flat.values()):
        flat = {name: value[:1] for name, value in flat.items()}
    x = (inputs - fit.tasks.x_centre) / fit.tasks.x_scale
    copies = Design.of(fit.tasks).plan(fit.arrangement).n_trunks
    heads = _Heads(_alone(model, tasks.names), tasks, settings)
    runs = len(next(iter(flat.values()))) if flat else 1
    bar, found = Progress(progress), []
    size = replay.features(model, x, {name: value[:1] for name, value in flat.items()}, copies)[0, 0].size
    step = int(np.clip(FEATURES_AT_ONCE // size, 1, runs))
    for at in range(0, runs, step):
        phi = replay.features(model, x, {name: value[at : at + step] for name, value in flat.items()}, copies)
        phi = phi[:, min(home, phi.shape[1] - 1)]
        found.append(heads.fit(phi, n_draws // runs, seed + at, bar))
    draws = _joined(fit, tasks, joint, arrangement, found, time.perf_counter() - start)
    out = replace(
        fit, model=replace(model, arrangement=arrangement), tasks=joint, draws=draws, added=(*fit.added, *tasks.names)
    )
    if not all(own.settled for own in found):
        steps = f"{settings.max_steps} steps"
        what = f"the heads of {quoted(tasks.names)} had not settled after {steps}"
        warnings.warn(what, ConvergenceWarning, stacklevel=3)
    return out


@dataclass(frozen=True)
class _Heads:
    """Heads on known features.

    Parameters
    ----------
    model : Model
        Of the new tasks alone, whose inputs are the features.
    """

    model: Any
    tasks: Tasks
    settings: SVI | MAP

    def fit(self, phi: np.ndarray, each: int, seed: int, progress: Progress) -> Draws:
        """Fit on each of some features, side by side.

        Parameters
        ----------
        phi : ndarray, shape (runs, rows, k)
        each : int
            Draws to take of each run.

        Returns
        -------
        Draws
            Sites ``1 × runs·each × event shape``. The log ratio is that of the cut posterior: less the log evidence
            of each run's features, which the ELBO stands for.
        """
        settings, design = self.settings, Design.of(self.tasks)
        values = arrays_of.arrays(self.tasks, design)
        fixed = {name: jnp.asarray(value) for name, value in values.items() if name != "x"}
        own = {"x": jnp.asarray(phi, dtype=jnp.float32)}
        first = fixed | {"x": own["x"][0]}
        svi = NumPyroSVI(self.model, design, settings, first)
        key = jax.random.PRNGKey(seed)
        # All start at the same point.
        start = svi.start(key, first)
        params = jax.tree.map(lambda value: jnp.broadcast_to(value, (len(phi), *value.shape)), start)
        # Of hundreds of runs some one always wavers: it is their mean that has to settle.
        settling = Settling(1, float(np.sum(self.tasks.n_cells)), chunks(settings.max_steps))
        with progress.bar("heads", settings.max_steps) as tick:
            runs = [Run(params, own, jax.random.split(key, len(phi)))]
            (end,) = svi.train(runs, fixed, key, settling, tick, pooled=True)
        if settling.failed.any():
            raise FitError("the ELBO of the new heads is not finite")

        def read(params: Any, x: Any, key: Any) -> Any:
            arrays = fixed | {"x": x}
            _, ratio = svi._draw(params, arrays, jax.random.fold_in(key, 1), svi.evaluation)
            return svi._draw(params, arrays, key, each), jnp.mean(ratio)

        keys = jax.random.split(jax.random.fold_in(key, settings.max_steps), len(phi))
        (sites, ratio), elbo = jax.jit(jax.vmap(read))(end.params, own["x"], keys)
        return Draws(
            sites={name: np.asarray(value).reshape(1, -1, *value.shape[2:]) for name, value in sites.items()},
            trace=np.stack(settling.trace, axis=1),
            elbo=np.asarray(elbo, dtype=float),
            log_ratio=np.asarray(ratio - elbo[:, None], dtype=float).ravel(),
            settled=bool(settling.settled.all()),
        )


def _able(model: Any) -> Any:
    """The model, after checking that heads can be added to it."""
    if not {"trunk", "arrangement", "relation"} <= {field.name for field in fields(model)}:
        raise TypeError(f"{type(model).__name__} has no trunk that more tasks could share: fit a SharedTrunk")
    if not isinstance(model.relation, Independent):
        raise TypeError(
            f"heads tied by {type(model.relation).__name__} would change with every new one; extend needs Independent"
        )
    for name in ("noise", "amplitude"):
        prior = getattr(model, name, None)
        if isinstance(prior, Common | ByGroup):
            raise TypeError(f"extend needs one {name} to each task, of its own; {type(prior).__name__} is not that")
    return model


def _alone(model: Any, names: tuple[str, ...]) -> Any:
    """The model of the new tasks, whose inputs are features: all of them are seen."""
    everything = {"inputs": ()} if hasattr(model, "inputs") else {}
    return replace(model, trunk=Identity(), arrangement=Arrangement.shared(names), **everything)


def _settings(fit: Fit, options: Mapping[str, Any]) -> SVI | MAP:
    """How the heads are fitted: by the mode if the fit is one, else by SVI, as the fit was where it was."""
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise TypeError(f"extend has no option {', '.join(unknown)}; it has {', '.join(OPTIONS)}")
    like = fit.settings if isinstance(fit.settings, SVI | MAP) else SVI()
    return replace(like, restarts=1, **options)


def _arranged(old: Arrangement, names: tuple[str, ...], beside: str | None) -> tuple[Arrangement, int]:
    """The arrangement with a head for each new task, and the number of their trunk in the old one."""
    if beside is None and len(old.trunks) > 1:
        raise TaskError(f"the fit has {len(old.trunks)} trunks, {old}: name a task beside which to put the new ones")
    known = [[name for head in trunk for name in head] for trunk in old.trunks]
    places = [place for place, own in enumerate(known) if beside is None or beside in own]
    if not places:
        raise TaskError(f"no task {beside!r} in the fit; it has {quoted(old.names, shown=20)}")
    heads = tuple((name,) for name in names)
    trunks = tuple((*trunk, *heads) if place == places[0] else trunk for place, trunk in enumerate(old.trunks))
    return Arrangement(trunks, old.flipped), places[0]


def _union(old: Tasks, new: Tasks, inputs: np.ndarray) -> Tasks:
    """Old and new tasks on the rows of both, or on the same rows where their inputs are the same."""
    same = np.array_equal(old.X, inputs)
    shift = 0 if same else old.n_rows
    marks = [own.intervened or tuple(np.zeros(n, dtype=bool) for n in own.n_cells) for own in (old, new)]
    return replace(
        old,
        names=old.names + new.names,
        families=old.families + new.families,
        X=old.X if same else np.concatenate([old.X, inputs]),
        rows=old.rows + tuple(rows + shift for rows in new.rows),
        y=old.y + new.y,
        exposure=old.exposure + new.exposure,
        importance=np.concatenate([old.importance, new.importance]),
        y_centre=np.concatenate([old.y_centre, new.y_centre]),
        y_scale=np.concatenate([old.y_scale, new.y_scale]),
        layout="wide",
        noise_group=None,
        noise_levels=(),
        intervened=marks[0] + marks[1] if old.intervened or new.intervened else (),
    )


def _joined(
    fit: Fit, tasks: Tasks, joint: Tasks, arrangement: Arrangement, found: list[Draws], seconds: float
) -> Draws:
    """Old and new draws side by side, in the order of the joint arrangement."""
    parts = [own.sites for own in found]
    new = {name: np.concatenate([own[name] for own in parts], axis=1) for name in parts[0]}
    new = {name: value.reshape(*fit.draws.shape, *value.shape[2:]) for name, value in new.items()}
    designs = Design.of(fit.tasks), Design.of(tasks)
    before, after = designs[0].plan(fit.arrangement), Design.of(joint).plan(arrangement)
    alone = designs[1].plan(Arrangement.shared(tasks.names))
    # Arrangements are sorted: where each trunk and each head of the joint one stood before.
    trunk, head = np.empty(after.n_trunks, dtype=int), np.empty(after.n_heads, dtype=int)
    trunk[after.trunk_of_head[after.head_of[: len(before.head_of)]]] = before.trunk_of_head[before.head_of]
    head[after.head_of] = np.concatenate([before.head_of, before.n_heads + alone.head_of])

    sites = {}
    for name, value in fit.draws.sites.items():
        if in_trunk(name):
            sites[name] = value[:, :, trunk]
        elif name.startswith("head"):
            sites[name] = np.concatenate([value, new[name]], axis=2)[:, :, head]
        elif name in ("intercept", "amplitude"):
            sites[name] = np.concatenate([value, new[name]], axis=2)
    for block, members in Design.of(joint).groups.items():
        own = [
            sampled[noise_site(name)]
            for sampled, design in zip((fit.draws.sites, new), designs, strict=True)
            for name, inside in design.groups.items()
            if design.families[inside[0]] == joint.families[members[0]] and noise_site(name) in sampled
        ]
        if own:
            sites[noise_site(block)] = np.concatenate(own, axis=2)
    ratio = fit.draws.log_ratio
    return Draws(
        sites=sites,
        stats=fit.draws.stats,
        trace=max((np.asarray(own.trace) for own in found), key=lambda trace: trace.size),
        elbo=np.array([np.mean(np.concatenate([own.elbo for own in found]))]),
        log_ratio=None if ratio is None else ratio + np.concatenate([own.log_ratio for own in found]),
        settled=fit.draws.settled and all(own.settled for own in found),
        seconds=fit.draws.seconds + seconds,
    )
