"""Does sharing generalise better or worse at the same training loss?"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bmtl.arrangement import Arrangement
from bmtl.diagnostics._geometry import MEASURES, geometry
from bmtl.diagnostics._training import ARMS, Study, arms, joined
from bmtl.diagnostics.restarts import CLEAR
from bmtl.findings import Finding, signed
from bmtl.fitting.workers import spread
from bmtl.tasks import Tasks
from bmtl.training.runs import Runs
from bmtl.trunks import Trunk

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Shared and single-task training, side by side. Made by `trajectory`.

    Attributes
    ----------
    names : tuple of str
    train, held : dict
        Arm (``shared``, ``single``) to losses, ``epochs + 1 × runs × T``.
    looks : tuple of int
        Epochs at which the trunk's surroundings were measured.
    measures : dict
        Arm to measure (``sharpness``, ``fisher``, ``coherence``) to array ``looks × runs × T``.
    """

    names: tuple[str, ...]
    train: dict[str, np.ndarray]
    held: dict[str, np.ndarray]
    looks: tuple[int, ...]
    measures: dict[str, dict[str, np.ndarray]]

    def table(self) -> pd.DataFrame:
        """One row an arm, look, run and task.

        Returns
        -------
        DataFrame
            Columns arm, epoch, run, task, train, held, gap (held − train), sharpness (the Hessian's largest
            eigenvalue), fisher (trace of the Fisher information) and coherence (of the cells' gradients: 1 if all
            agree).
        """
        parts = []
        looks = np.array(self.looks)
        for arm in ARMS:
            shape = self.train[arm][looks].shape
            epoch, run, task = (own.ravel() for own in np.indices(shape))
            columns = {name: own[looks].ravel() for name, own in (("train", self.train[arm]), ("held", self.held[arm]))}
            columns |= {"gap": columns["held"] - columns["train"]}
            columns |= {name: own.ravel() for name, own in self.measures[arm].items()}
            index = {"arm": arm, "epoch": looks[epoch], "run": run, "task": np.array(self.names, dtype=object)[task]}
            parts.append(pd.DataFrame(index | columns))
        return pd.concat(parts, ignore_index=True)

    def gaps(self, points: int = 10) -> pd.DataFrame:
        """Both arms at equal training loss.

        A run reaches a loss when it first falls below it, between two epochs by linear interpolation; measures are
        those of the nearest look. Losses go from the lowest that all runs of both arms reach to the highest from which
        all begin; a task on which they have none in common has no rows.

        Returns
        -------
        DataFrame
            Columns task, train (the loss), held_shared, held_single (means over runs), transfer (single − shared: above
            0 sharing generalises better at that loss), se (over runs), and for every measure its mean in both arms.
        """
        rows = []
        for t, name in enumerate(self.names):
            low = max(own[..., t].min(axis=0).max() for own in self.train.values())
            high = min(own[0, :, t].min() for own in self.train.values())
            for level in np.linspace(high, low, points + 1)[1:] if low < high else ():
                found = {arm: self._at(arm, t, level) for arm in ARMS}
                held = [found[arm][:, 0] for arm in ARMS]
                se = np.sqrt(sum(own.var(ddof=1) / len(own) for own in held)) if len(held[0]) > 1 else np.nan
                means = [found[arm][:, 1 + k].mean() for k in range(len(MEASURES)) for arm in ARMS]
                rows.append((name, level, held[0].mean(), held[1].mean(), held[1].mean() - held[0].mean(), se, *means))
        measures = [f"{name}_{arm}" for name in MEASURES for arm in ARMS]
        columns = ["task", "train", "held_shared", "held_single", "transfer", "se", *measures]
        return pd.DataFrame(rows, columns=columns)

    def _at(self, arm: str, t: int, level: float) -> np.ndarray:
        """Held-out loss and measures of each run where its training loss first is at that level."""
        out = []
        for run in range(self.train[arm].shape[1]):
            train, held = self.train[arm][:, run, t], self.held[arm][:, run, t]
            after = int(np.argmax(train <= level))
            part = (train[after - 1] - level) / (train[after - 1] - train[after])
            epoch = after - 1 + part
            near = int(np.argmin(np.abs(np.array(self.looks) - epoch)))
            value = (1 - part) * held[after - 1] + part * held[after]
            out.append([value, *(self.measures[arm][name][near, run, t] for name in MEASURES)])
        return np.array(out)

    def summary(self) -> pd.DataFrame:
        """One row a task: the lowest training loss that both arms reach.

        Returns
        -------
        DataFrame
            Those rows of `gaps`, with transfers that are clear (beyond two standard errors) named in the column says:
            ``helps``, ``hurts`` or ``undecided``.
        """
        last = self.gaps().groupby("task", sort=False).tail(1).reset_index(drop=True)
        clear = np.abs(last["transfer"]) > CLEAR * last["se"]
        return last.assign(says=np.where(~clear, "undecided", np.where(last["transfer"] > 0, "helps", "hurts")))

    def findings(self) -> list[Finding]:
        """A sentence a task: whether sharing generalises better at equal training loss."""
        return [Finding("trajectory", (str(row.task),), _said(row)) for row in self.summary().itertuples()]

    def plot(self) -> Figure:
        """Held-out against training loss of both arms, a panel a task."""
        from bmtl.diagnostics.training_plots import trajectory as draw

        return draw(self)

    def __repr__(self) -> str:
        table = self.summary().to_string(index=False, float_format=lambda v: f"{v:.3g}")
        return f"bmtl.Trajectory: at the lowest training loss of both arms\n{table}"


def _said(row: Any) -> str:
    """A row of the summary in words."""
    says = {"helps": "generalises better when shared", "hurts": "generalises worse when shared",
            "undecided": "generalises neither measurably better nor worse when shared"}
    return (
        f"At equal training loss ({row.train:.2f}) {row.task} {says[row.says]}: sharing gains "
        f"{signed(row.transfer, row.se)} nats a held-out cell."
    )


def trajectory(
    trunk: Trunk,
    tasks: Tasks,
    *,
    every: int = 25,
    runs: int = 5,
    held_out: float = 0.25,
    device: str = "auto",
    seed: int = 0,
    executor: Executor | None = None,
    **options: Any,
) -> Trajectory:
    """Train one trunk for all tasks, and one for each, and compare held-out losses where training losses are equal.

    Sharing changes how far training comes and how well what was learned generalises; at equal training loss only the
    second is left (Mueller, Dredze & Andrews, "Can optimization trajectories explain multi-task transfer?", TMLR 2024,
    who find that neither the surroundings of the trajectory nor conflict explain it). Beside it stand the sharpness of
    the loss (Keskar et al., ICLR 2017), the trace of the Fisher information (Jastrzebski et al., ICML 2021) and the
    coherence of gradients (Chatterjee & Zielinski, 2020), all by the parameters of the trunk.

    Parameters
    ----------
    trunk, tasks, device, **options
        As in `bmtl.train`. Of weightings whose noise is learned, losses of the two arms are at different noises and
        not to be compared.
    every : int
        Epochs from one look at the surroundings to the next, ≥ 1.
    runs : int
        Seeds, ≥ 1: ``seed``, ``seed + 1``, ….
    held_out : float
        In (0, 1).
    executor : concurrent.futures.Executor, optional
        Whose workers train the two arms. The result is the same with and without.

    Raises
    ------
    ValueError, TypeError, TaskError, FitError
        As `bmtl.train`, and if there are fewer than two tasks, nothing is held out, the trunk has no parameters, or the
        weighting changes noises.
    """
    tasks.require(2, "trajectory")
    if every < 1:
        raise ValueError(f"every must be ≥ 1, got {every}")
    study = Study.of(tasks, runs, held_out, device, seed, options)
    if study.held is None:
        raise ValueError("trajectories are judged by held-out rows: held_out must be > 0")
    if study.recipe.weighting.noise != "fixed":
        name = type(study.recipe.weighting).__name__
        raise ValueError(f"losses are compared between arms, but {name} has another noise in each: use Unitary()")
    found = spread(_arm, [(study, trunk, own, every) for own in arms(tasks.names).values()], executor)
    train, held, seen, measures = (dict(zip(ARMS, own, strict=True)) for own in zip(*found, strict=True))
    return Trajectory(tasks.names, train, held, seen[ARMS[-1]], measures)


def _arm(
    study: Study, trunk: Trunk, arrangement: Arrangement, every: int
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...], dict[str, np.ndarray]]:
    """Losses on rows to train on and held out, the epochs looked at, and what was seen at them."""
    seen: dict[int, list[dict[str, np.ndarray]]] = {}

    def look(epoch: int, own: Runs) -> None:
        if not own.trunk:
            raise ValueError(f"the surroundings are those of the trunk, and {type(trunk).__name__} has no parameters")
        if epoch % every == 0 or epoch == study.recipe.epochs:
            seen.setdefault(epoch, []).append(geometry(own))

    found = study.follow(trunk, arrangement, look)
    measures = {
        name: np.stack([np.concatenate([run[name] for run in own]) for own in seen.values()]) for name in MEASURES
    }
    return joined(found, "train"), joined(found, "held"), tuple(seen), measures


__all__ = ["Trajectory", "trajectory"]
