"""What a fit gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from bmtl import replay, scores, stores, task_functions, task_noise, trees
from bmtl._outcomes import new_exposures
from bmtl.arrangement import Arrangement
from bmtl.causal_fit import CausalFit
from bmtl.diagnostics.convergence import checks, problems
from bmtl.diagnostics.loo import LARGE, SAMPLE, TaskLOO, from_sample, psis_loo
from bmtl.errors import FitError
from bmtl.fitting.settings import point_trunk
from bmtl.model import Model, explained
from bmtl.tasks import Tasks

if TYPE_CHECKING:
    from bmtl.fitting.draws import Draws
    from bmtl.fitting.settings import Settings

CHECKED_CELLS = 20
"""Cells a task, evenly spread, whose linear predictors are checked for convergence."""

CHECKED_IN_ALL = 5_000
"""Cells that are checked of all tasks together, if there are not more tasks: each costs some milliseconds."""


@dataclass(frozen=True, eq=False)
class Fit(CausalFit):
    """A fitted model.

    Made by `bmtl.fit` or `bmtl.load`.

    Attributes
    ----------
    model : Model
    tasks : Tasks
    settings : SVI or NUTS or MAP
    engine, device : str
    seed : int
    draws : Draws
        Posterior draws of the latent sites on the modelled scale.
    added : tuple of str
        Tasks added by `extend`: the trunk knows nothing of their outcomes.
    """

    model: Model
    tasks: Tasks
    settings: Settings
    engine: str
    device: str
    seed: int
    draws: Draws
    added: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        """``svi``, ``nuts`` or ``map``."""
        return type(self.settings).__name__.lower()

    @property
    def arrangement(self) -> Arrangement:
        return self.model.arranged(self.tasks.names)

    @property
    def powers(self) -> dict[str, float]:
        """Power to which each task's likelihood is raised in the target; empty where that is the posterior."""
        own = self.draws.powers
        return {} if own is None else dict(zip(self.tasks.names, own.tolist(), strict=True))

    @property
    def target(self) -> str:
        """What the draws approximate: the posterior, or a power posterior with which powers."""
        each = ", ".join(f"{name} {power:.3g}" for name, power in self.powers.items())
        return f"power posterior (likelihoods to the powers {each})" if each else "posterior"

    @cached_property
    def data(self) -> xr.DataTree:
        """Everything as an ArviZ tree.

        Groups: ``posterior`` (``noise`` in the user's units, and the latent sites on the modelled scale),
        ``log_likelihood`` (but of very large data), ``posterior_predictive`` (of large data: fewer draws, evenly
        spread) and ``observed_data`` (one variable a task, its cells along ``obs_<task>``), ``constant_data`` (inputs),
        ``sample_stats`` (of NUTS; for SVI the log ratio of posterior and guide) and, for SVI and MAP, ``optimisation``.
        """
        return trees.build(self)

    @cached_property
    def explained(self) -> Tasks:
        """The tasks with those cells that the model explains, of which log-likelihoods are: all, for most models."""
        return explained(self.model, self.tasks)

    @cached_property
    def noise(self) -> dict[str, np.ndarray]:
        """Noise of every task that has one, ``chains × draws``, in the user's units; a vector (last) if it is one.

        Where noises differ by group of rows, ``chains × draws × groups``.
        """
        return task_noise.noise(self)

    @cached_property
    def flat(self) -> dict[str, np.ndarray]:
        """Draws of the latent sites on the modelled scale, those of all chains in one dimension."""
        return {name: value.reshape(-1, *value.shape[2:]) for name, value in self.draws.sites.items()}

    @cached_property
    def log_likelihood(self) -> list[np.ndarray]:
        """Log-likelihood of each task's observed cells in the user's units, ``chains × draws × cells``."""
        found = replay.log_likelihood(self.model, self.tasks, self.flat)
        return [value.reshape(*self.draws.shape, -1) for value in found]

    @cached_property
    def checks(self) -> pd.DataFrame:
        """Convergence checks: check, of, value, limit, passed, needed (see `bmtl.diagnostics.checks`)."""
        if self.draws.checked is not None:
            return self.draws.checked
        quantities: dict[str, np.ndarray] = {}
        if self.draws.stats:
            each = max(1, min(CHECKED_CELLS, CHECKED_IN_ALL // self.tasks.n_tasks))
            some = self.tasks.keep_cells([_spread(len(rows), each) for rows in self.tasks.rows])
            eta = replay.linear_predictor(self.model, some, self.flat, self.tasks)
            noises = task_noise.distinct(self)
            quantities |= {f"noise of {name}": value for name, value in noises.items() if np.ptp(value) > 0}
            quantities |= {
                f"linear predictor of {name}": value.reshape(*self.draws.shape, -1)
                for name, value in zip(self.tasks.names, eta, strict=True)
            }
        return checks(self.draws, quantities)

    @property
    def problems(self) -> str:
        """Which needed convergence checks failed, in words; empty if none did."""
        return problems(self.checks)

    @property
    def converged(self) -> bool:
        return not self.problems

    @cached_property
    def loo(self) -> dict[str, TaskLOO]:
        """Leave-one-cell-out predictive densities, cell by cell.

        If a task has more than `bmtl.diagnostics.loo.LARGE` cells, a random `SAMPLE` of them are left out one by one,
        and the others are corrected by what that costs on average (but where outcomes act on each other).

        Raises
        ------
        FitError
            For a MAP fit, which has no posterior draws, and where the target is a power posterior.
        """
        if self.method == "map":
            raise FitError("a MAP fit has no posterior draws to compute LOO from: fit with method='svi' or 'nuts'")
        if self.powers:
            raise FitError(f"LOO takes a cell out of a posterior, and this is a {self.target}: fit without a weighting")
        if max(self.tasks.n_cells) > LARGE and not self.causal:
            return self._sampled_loo()
        return {
            name: psis_loo(own, self.draws) for name, own in zip(self.tasks.names, self.log_likelihood, strict=True)
        }

    def _sampled_loo(self) -> dict[str, TaskLOO]:
        """`loo` that never holds all draws of all cells."""
        rng = np.random.default_rng([self.seed, 3])
        # In ascending order, as the cells of tasks are.
        picks = [
            np.sort(rng.choice(n, SAMPLE, replace=False)) if n > LARGE else np.arange(n) for n in self.tasks.n_cells
        ]
        masks = [np.isin(np.arange(n), own) for n, own in zip(self.tasks.n_cells, picks, strict=True)]
        some = self.tasks.keep_cells(masks)
        rows = np.unique(np.concatenate(some.rows))
        each = replay.log_likelihood(self.model, some, self.flat, rows, self.tasks)
        every = replay.log_predictive(self.model, self.tasks, self.flat)
        out = {}
        for name, own, pick, all_in in zip(self.tasks.names, each, picks, every, strict=True):
            found = psis_loo(own.reshape(*self.draws.shape, -1), self.draws)
            out[name] = from_sample(all_in, pick, found) if len(pick) < len(all_in) else found
        return out

    def elpd(self) -> pd.DataFrame:
        """Expected log predictive density of a left-out cell, summed over each task's cells.

        Returns
        -------
        DataFrame
            Columns task, elpd, se, p_loo, worst_pareto_k, n, trusted, converged; nats, in the user's units. Not to be
            trusted: a task with k̂ above 0.7 somewhere, and any task if the trunk was estimated by a point, which has
            seen the cells that importance sampling leaves out; compare such fits by refits, as `bmtl.advise` does.

        Raises
        ------
        FitError
            As `loo`.
        """
        seen = point_trunk(self.model, self.settings)
        rows = [
            (name, own.elpd, own.se, own.p_loo, float(np.max(own.pareto_k)), len(own.pointwise), own.trusted)
            for name, own in self.loo.items()
        ]
        table = pd.DataFrame(rows, columns=["task", "elpd", "se", "p_loo", "worst_pareto_k", "n", "trusted"])
        return table.assign(trusted=table["trusted"] & (not seen), converged=self.converged)

    def weights(self, prob: float = 0.89) -> pd.DataFrame:
        """Each task's noise and weight.

        The weight is the expected Fisher information of one observation about its linear predictor, mean over the
        task's cells: 1/σ² for a Gaussian task, p(1−p) for a yes/no, and so on, in the user's units.

        Parameters
        ----------
        prob : float
            Probability inside the central intervals.

        Returns
        -------
        DataFrame
            Columns task, group (only where noises differ by group of rows), family, noise, noise_low, noise_high,
            weight, weight_low, weight_high; the noise is NaN for families without one and for ordinal tasks, whose
            gaps between cutpoints are several (see `noise`), and the weight of a group without cells is NaN.
        """
        return task_noise.weights(self, prob)

    def inputs(self, threshold: float = 0.1, prob: float = 0.89) -> pd.DataFrame:
        """What each input does to each task: derivatives of the linear predictor, whatever the trunk.

        Parameters
        ----------
        threshold : float
            ≥ 0: the least size that matters, in units of the family's usual amplitude (for a standardised Gaussian
            outcome: its standard deviation).
        prob : float
            Probability inside the central intervals.

        Returns
        -------
        DataFrame
            Columns task, label (where a task has a linear predictor for each label, against their mean; else empty),
            input, effect, effect_low, effect_high, size, p_matters. The effect is the mean over rows of the derivative
            by the standardised input: what one standard deviation of the input adds to the linear predictor, in the
            outcome's units where the link is the identity. The size is the root mean square of the derivative, and
            p_matters the probability that it exceeds the threshold.

        Raises
        ------
        ValueError
            If the threshold is negative or not finite.
        """
        return task_functions.inputs(self.model, self.tasks, self.flat, threshold, prob)

    def relations(self, prob: float = 0.89) -> pd.DataFrame:
        """How the functions of each two tasks relate.

        Parameters
        ----------
        prob : float
            Probability inside the central intervals.

        Returns
        -------
        DataFrame
            One row a pair. Columns task_a, task_b, correlation, correlation_low, correlation_high (of the linear
            predictors over rows, signs included; over all labels where there is one for each, NaN if they are not as
            many), p_negative, together (probability of one cluster; NaN unless the relation is `Clustered`), and the
            posterior means of what else the relation knows of pairs.
        """
        return task_functions.relations(self.model, self.tasks, self.flat, prob)

    def rank(self, share: float = 0.05) -> pd.DataFrame:
        """How many functions the tasks mix: the posterior of the effective rank of the heads times their amplitudes.

        Parameters
        ----------
        share : float
            In (0, 1): singular values count if their squares are more than this share of the total.

        Returns
        -------
        DataFrame
            Columns rank, probability.

        Raises
        ------
        ValueError
            If the share is not between 0 and 1, or the heads are not of the same features.
        """
        return task_functions.rank(self.model, self.tasks, self.flat, share)

    def predict(
        self,
        X_new: Any,
        *,
        exposure: float | np.ndarray | Mapping[str, Any] = 1.0,
        group: Any = None,
        seed: int | None = None,
        store: str | Path | None = None,
    ) -> xr.DataTree:
        """Predictions at new inputs, on each outcome's own scale.

        Parameters
        ----------
        X_new : DataFrame or array, shape (rows, inputs)
            The inputs the tasks were made with, in the user's units.
        exposure : float or array, shape (rows,), or mapping of str to these
            Exposure of counts, and number of trials of binomial tasks; a mapping gives it by task, 1 for the others.
        group : sequence of labels, length rows
            Group of each row, where noises differ by group.
        seed : int, optional
            Of the drawn outcomes. Default: the fit's.
        store : str or Path, optional
            A zarr store to write to, some draws at a time, for more draws than fit into memory. It is there at the
            end, and whole, or not at all; the tree reads from it what is used.

        Returns
        -------
        DataTree
            Groups ``mean`` (posterior draws of the expected outcome) and ``predictions`` (drawn outcomes), each with
            one variable a task of dimensions ``chain, draw, row``. The mean of a categorical or ordinal outcome is
            the probability of each label, with the dimension ``category_<task>``; its predictions are codes, counted
            from 0 in the order of the attribute ``labels``. Outcomes that have causes are drawn after them, and their
            mean is given the drawn causes.

        Raises
        ------
        TaskError
            If the inputs are not those of the tasks, or are not finite, an exposure is not one that a task can have,
            or groups are missing or not known.
        ImportError
            If a store is asked for and zarr is not installed.
        """
        x = self.tasks.standardise(X_new)
        exposures = new_exposures(self.tasks, exposure, len(x))
        codes = task_noise.new_groups(self, group, len(x))
        seed = self.seed if seed is None else seed
        if self.causal:
            from bmtl.causal.fitted import predicted

            found = predicted(self.effects.draws, x, exposures, seed)
        elif store is not None:
            parts = replay.predict_parts(self.model, self.tasks, self.flat, x, exposures, seed, codes)
            return trees.store_predicted(Path(store), self.tasks, parts, len(x), self.draws.shape)
        else:
            found = replay.predict(self.model, self.tasks, self.flat, x, exposures, seed, codes)
        tree = trees.predicted(self.tasks, *found, self.draws.shape)
        return tree if store is None else stores.stored(Path(store), tree)

    def score(self, tasks: Tasks) -> pd.DataFrame:
        """How well outcomes that the fit has not seen are predicted: a test set, a later year.

        Parameters
        ----------
        tasks : Tasks
            Some of the fit's tasks, by name, made from other rows in the same way; all of them where outcomes have
            causes, whose observed outcomes they are then scored given.

        Returns
        -------
        DataFrame
            Columns task, n (cells), lpd (mean over them of the log predictive density, in nats and the user's units)
            and se (its standard error, cells taken as independent).

        Raises
        ------
        TaskError
            If a task is not in the fit, is of another family or missing that may be a cause, inputs or their levels are
            not those of the fit, or groups of rows are missing where noises differ by group.
        """
        return scores.score(self, tasks)

    def extend(
        self,
        tasks: Tasks,
        *,
        beside: str | None = None,
        seed: int | None = None,
        progress: bool | None = None,
        **options: Any,
    ) -> Fit:
        """Add tasks to the fitted trunk, and leave everything that was fitted as it is.

        Each new task has a head of its own, inferred given the trunk at its posterior draws: the new outcomes do not
        change the trunk, nor any draw of the tasks there were. To learn the trunk from all of them, fit them together.

        Parameters
        ----------
        tasks : Tasks
            The new tasks, on the same inputs, which they all see. Rows may be others. Inputs are encoded and
            standardised as in this fit.
        beside : str, optional
            A task on the trunk to put them on; needed if there are several.
        seed, progress
            As in `bmtl.fit`. Default: the fit's seed.
        **options
            ``guide``, ``max_steps``, ``batch_size``, ``learning_rate``, as in `bmtl.fitting.SVI`. Default: this fit's.
            The heads are fitted by SVI, whatever the trunk was fitted by, or by their mode if this is a MAP fit.

        Returns
        -------
        Fit
            All tasks, the old ones first.

        Warns
        -----
        ConvergenceWarning
            If the heads did not settle.

        Raises
        ------
        TaskError
            If a task is there already, inputs are missing or unknown, or it is not said on which trunk.
        TypeError
            If the model has no trunk, ties its heads or their scales to each other, or an option is unknown.
        FitError
            If the ELBO is not finite.
        """
        from bmtl.fitting.extend import extend

        return extend(self, tasks, beside, self.seed if seed is None else seed, progress, options)

    def save(self, path: str | Path) -> None:
        """Write the fit to a netCDF file, atomically: either the whole file is there or none.

        Parameters
        ----------
        path : str or Path
            One that ends in ``.zarr`` becomes a zarr store (a folder), which has the log-likelihood of every cell
            even where `data` has too many of them: it is written some draws at a time.

        Raises
        ------
        OSError
            If the file cannot be written.
        ImportError
            If it is to be a store and zarr is not installed.
        """
        from bmtl.storage import save

        save(self, path)

    def report(self, path: str | Path) -> None:
        """Write what there is to say of the fit to one self-contained HTML file, atomically.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        from bmtl.report import fit, html

        html.save(fit.render(self), path)

    def summary(self) -> Mapping[str, str]:
        """What was fitted, how and on what, in words."""
        chains, draws = self.draws.shape
        return {
            "model": type(self.model).__name__,
            "arrangement": str(self.arrangement),
            "method": self.method,
            "engine": f"{self.engine} on {self.device}",
            "draws": f"{chains} × {draws}",
            **({"graphs": self._graphs} if self.causal else {}),
            **({"target": self.target} if self.powers else {}),
            "seed": str(self.seed),
            "seconds": f"{self.draws.seconds:.1f}",
            **({"added": ", ".join(self.added)} if self.added else {}),
            "converged": "yes" if self.converged else f"NO: {self.problems}",
        }

    def __repr__(self) -> str:
        lines = [f"{key:>12}  {value}" for key, value in self.summary().items()]
        table = self.weights().set_index("task")
        return "\n".join(["bmtl.Fit", *lines, table.to_string(float_format=lambda v: f"{v:.3g}")])


def load(path: str | Path, *, net: Any = None, program: Any = None) -> Fit:
    """Read a fit written by `Fit.save`. Nothing executable is read from the file.

    Parameters
    ----------
    path : str or Path
        A netCDF file, or a zarr store if it ends in ``.zarr``.
    net : torch.nn.Module, optional
        The net of a `bmtl.trunks.Module`, needed if the fit has one. What was trained is taken from the file; what was
        frozen must hold the values it had.
    program : callable, optional
        The program of a `bmtl.models.FromProgram`, needed if the fit was made by one.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a saved fit, its model is of a class that is not installed, or the net or the program is
        missing or another.
    """
    from bmtl.storage import load as read

    return read(path, net, program)


def _spread(n: int, some: int) -> np.ndarray:
    """Mask of ``some`` of ``n`` cells, evenly spread."""
    mask = np.zeros(n, dtype=bool)
    mask[np.unique(np.linspace(0, n - 1, min(n, some)).astype(int))] = True
    return mask
