"""Fits by several processes: they are those of one process, and the same on all ranks.

Run by ``torchrun``, this file is what the ranks do: ``test_distributed.py FOLDER DEVICE [long]``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
import torch.distributed as dist

import bmtl
from bmtl.data import Design, arrays
from bmtl.fitting import MAP, SVI, powers, progress, pyro_svi
from bmtl.fitting.distributed import Ranks
from bmtl.fitting.pyro_svi import PyroSVI
from bmtl.models import SharedTrunk
from bmtl.training import GradNorm, Static
from bmtl.trunks import MLP, Identity

pytestmark = pytest.mark.filterwarnings("ignore::bmtl.ConvergenceWarning")

CASES: dict[str, tuple[str, SVI | MAP]] = {
    "all rows": ("wide", SVI(trunk="guide")),
    "batches": ("wide", SVI(trunk="point", batch_size=7)),
    "low rank": ("wide", SVI(trunk="guide", guide="low_rank", batch_size=8)),
    "flow": ("wide", SVI(trunk="point", guide="flow", batch_size=8, restarts=1)),
    "gains": ("wide", SVI(trunk="guide", optimiser="gains", restarts=1)),
    "weights": ("wide", SVI(trunk="guide", weighting=Static({"b": 2.0, "c": 0.5}))),
    "mode": ("wide", MAP()),
    "long": ("long", SVI(trunk="guide", batch_size=7)),
}
every_case = pytest.mark.parametrize("case", CASES)


def tasks_of(layout: str) -> bmtl.Tasks:
    """Three tasks on 41 rows, which no two ranks can halve; some outcomes missing."""
    rng = np.random.default_rng(21)
    X = rng.normal(size=(41, 2))
    f = X @ [1.0, -0.5]
    if layout == "long":
        y, group = 3.0 + f + rng.normal(size=41), list("uvw" * 14)[:41]
        frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "y": y, "group": group})
        return bmtl.Tasks.from_groups(frame, ["a", "b"], "y", "group", "gaussian")
    Y = np.column_stack([30.0 + 5.0 * (f + rng.normal(size=41)), f > rng.logistic(size=41), rng.poisson(np.exp(f))])
    Y[rng.random((41, 3)) < 0.2] = np.nan
    return bmtl.Tasks.from_arrays(X, Y, ["gaussian", "bernoulli", "poisson"], names=["a", "b", "c"])


def svi_of(case: str, ranks: Ranks | None = None, device: str = "cpu") -> PyroSVI:
    layout, settings = CASES[case]
    tasks = tasks_of(layout)
    design = Design.of(tasks)
    values = arrays(tasks, design) | powers.first(tasks, settings)
    seeds = (3, 4)[: settings.restarts]
    model = SharedTrunk(MLP((3,)))
    return PyroSVI(model, design, settings, values, seeds, device=device, seed=5, ranks=ranks)


def of_steps(case: str, ranks: Ranks | None = None, device: str = "cpu") -> dict[str, np.ndarray]:
    """What a case has come to after 20 steps."""
    with torch.random.fork_rng(), pyro.validation_enabled(False):
        svi = svi_of(case, ranks, device)
        for _ in range(20):
            svi.step()
        sites, ratio = svi.draw(0)
        found = {"flat": svi.flat.detach(), "losses": svi.losses[:20], "elbo": svi._elbo(0), "ratio": ratio, **sites}
    return {f"{case}/{name}": np.asarray(torch.as_tensor(own).cpu()) for name, own in found.items()}


LONG = {"model": SharedTrunk(MLP((3,))), "trunk": "auto", "max_steps": 1000, "batch_size": 32}
"""A fit of a minute, in which ranks choose how the trunk is treated."""


def of_fit(**options: Any) -> dict[str, np.ndarray]:
    """What `bmtl.fit` comes to."""
    settings = {"engine": "pyro", "trunk": "guide", "restarts": 2, "batch_size": 16, "max_steps": 250, "draws": 50}
    fit = bmtl.fit(tasks=tasks_of("wide"), **{"model": SharedTrunk(Identity())} | settings | options)
    point = fit.settings.trunk == "point"  # type: ignore[union-attr]
    found = {"elbo": fit.draws.elbo, "ratio": fit.draws.log_ratio, "point": point, **fit.draws.sites}
    return {f"fit/{name}": np.asarray(own) for name, own in found.items()}


def message(**options: Any) -> np.ndarray:
    """Of the error that a fit by all ranks raises."""
    with pytest.raises(ValueError, match="rank") as found:
        of_fit(distributed=True, device="cpu", **options)
    return np.array(str(found.value))


def main(folder: Path, device: str, long: bool) -> None:
    """What each rank does; it leaves a file of arrays."""
    dist.init_process_group()
    ranks = Ranks.of("pyro", device, SVI())
    out = of_fit(distributed=True, device=device, **LONG) if long else of_quick(folder, device, ranks)
    np.savez(folder / f"rank{ranks.rank}.npz", **out)
    dist.destroy_process_group()


def of_quick(folder: Path, device: str, ranks: Ranks) -> dict[str, np.ndarray]:
    """Steps of all cases, and what else there is to see in a quick fit."""
    out = {name: own for case in CASES for name, own in of_steps(case, ranks, str(ranks.device)).items()}
    shown = []
    tqdm = progress.tqdm
    progress.tqdm = lambda *args, **named: shown.append(not named["disable"]) or tqdm(*args, **named)
    kept = folder / f"kept{ranks.rank}"
    together = {"distributed": True, "device": device, "checkpoint": kept}
    out |= of_fit(**together, progress=True)
    out["shown"], out["kept"] = np.array(shown), np.array(kept.exists())
    if ranks.size > 1:
        out["other seed"], out["small"] = message(seed=ranks.rank), message(batch_size=1)
    # No rank fits again what the first has kept.
    del pyro_svi.run
    again = of_fit(**together)
    out["again"] = np.array(all(np.array_equal(own, out[name]) for name, own in again.items()))
    return out


def launch(folder: Path, size: int, device: str, *more: str) -> list[dict[str, np.ndarray]]:
    """What the ranks left."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    done = subprocess.run(
        [*run, __file__, str(folder), device, *more], capture_output=True, text=True, check=False, timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return [dict(np.load(folder / f"rank{rank}.npz")) for rank in range(size)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, np.ndarray]]:
    return launch(tmp_path_factory.mktemp("ranks"), 2, "cpu")


@pytest.fixture(scope="module")
def one() -> dict[str, np.ndarray]:
    return of_fit(device="cpu")


def assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], rtol: float) -> None:
    """The same but for the order in which single-precision numbers are added up: about 1e-6 of their size."""
    for name, own in ours.items():
        scale = np.abs(own).max() if own.size else 1.0
        np.testing.assert_allclose(theirs[name], own, rtol=rtol, atol=rtol * scale, err_msg=name)


@every_case
def test_steps_of_two_ranks_are_those_of_one_process(case: str, two) -> None:
    assert_same(of_steps(case), two[0], rtol=1e-4)


def test_a_fit_of_two_ranks_is_that_of_one_process(one, two) -> None:
    assert_same(one, two[0], rtol=1e-4)


@pytest.mark.slow
def test_a_long_fit(tmp_path: Path) -> None:
    found = launch(tmp_path, 2, "cpu", "long")
    assert_same(of_fit(device="cpu", **LONG), found[0], rtol=1e-3)
    for name, own in found[0].items():
        np.testing.assert_array_equal(own, found[1][name], err_msg=name)


def test_all_ranks_have_the_same_to_the_bit(two) -> None:
    for name in two[0].keys() - {"shown", "kept"}:
        np.testing.assert_array_equal(two[0][name], two[1][name], err_msg=name)


def test_only_the_first_rank_shows_and_keeps(two) -> None:
    assert [own["shown"].all() for own in two] == [True, False]
    assert [own["shown"].any() for own in two] == [True, False]
    assert [bool(own["kept"]) for own in two] == [True, False]
    assert all(own["again"] for own in two)


def test_ranks_that_do_not_match_are_named(two) -> None:
    assert "rank 1 differs from rank 0 in seed: give" in str(two[1]["other seed"])
    assert "1 rows a step are fewer than the 2 ranks" in str(two[1]["small"])


@pytest.mark.gpu
def test_on_cuda(tmp_path: Path) -> None:
    """One rank a device, two at most; with a single device, what NCCL and two graphs a step make of one rank."""
    found = launch(tmp_path, min(2, torch.cuda.device_count()), "cuda")
    for case in CASES:
        assert_same(of_steps(case, device="cuda"), found[0], rtol=1e-3)
    assert_same(of_fit(device="cuda"), found[0], rtol=1e-3)
    for name in found[0].keys() - {"shown", "kept"}:
        np.testing.assert_array_equal(found[0][name], found[-1][name], err_msg=name)


@every_case
@pytest.mark.parametrize("size", [1, 2, 3])
def test_gradients_are_the_mean_over_ranks(case: str, size: int) -> None:
    with torch.random.fork_rng(), pyro.validation_enabled(False):
        losses, gradients = svi_of(case)._gradients()
        ranks = [svi_of(case, Ranks(rank, size, torch.device("cpu"))) for rank in range(size)]
    for own in ranks:
        own._give()
    whole = torch.cat([*gradients, losses[:, None]], 1)
    torch.testing.assert_close(
        torch.stack([own.pooled for own in ranks]).mean(0), whole, rtol=1e-4, atol=1e-5 * float(whole.abs().max())
    )


@pytest.mark.parametrize(("n", "size"), [(2, 2), (7, 2), (7, 3), (256, 5), (1_000_003, 8)])
def test_rows_are_shared_out(n: int, size: int) -> None:
    shares = [Ranks(rank, size, torch.device("cpu")).share(n) for rank in range(size)]
    assert [own.start for own in shares[1:]] + [n] == [own.stop for own in shares]
    counts = [own.stop - own.start for own in shares]
    assert shares[0].start == 0 and min(counts) > 0 and max(counts) - min(counts) <= 1


def test_rows_for_some_ranks_only() -> None:
    with pytest.raises(ValueError, match="2 rows a step are fewer than the 3 ranks"):
        Ranks(1, 3, torch.device("cpu")).share(2)


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of this process only."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_one_rank(alone: None, one) -> None:
    found = of_fit(device="cpu", distributed=True, engine="auto")
    for name, own in one.items():
        np.testing.assert_array_equal(own, found[name], err_msg=name)


def test_a_group_for_another_device(alone: None, monkeypatch) -> None:
    monkeypatch.setattr(dist, "get_backend_config", lambda: "cuda:nccl")
    with pytest.raises(ValueError, match=r"the process group \(cuda:nccl\) has no backend for cpu"):
        Ranks.of("pyro", "cpu", SVI())


def test_a_rank_without_a_device(alone: None, monkeypatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="there is no cuda:3 for rank 0: torch sees 2 CUDA devices"):
        Ranks.of("pyro", "cuda", SVI())
    assert Ranks.of("pyro", "cuda:1", SVI()).device == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "needs a process group: call torch.distributed.init_process_group"),
        ({"method": "nuts"}, "for SVI and MAP on Pyro, not for NUTS on pyro"),
        ({"engine": "numpyro"}, "for SVI and MAP on Pyro, not for SVI on numpyro"),
        ({"weighting": GradNorm()}, "not for GradNorm, which finds its powers in one process"),
        ({"executor": ThreadPoolExecutor(1)}, "an executor and distributed=True"),
    ],
    ids=["no group", "nuts", "numpyro", "gradnorm", "executor"],
)
def test_what_ranks_cannot_do(options: dict[str, Any], words: str, pair) -> None:
    with pytest.raises(ValueError, match=words):
        bmtl.fit(SharedTrunk(Identity()), pair, distributed=True, **options)


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:] == ["long"])
