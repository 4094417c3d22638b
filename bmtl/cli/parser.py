"""The words of the command line. Nothing here computes: help is shown at once."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

from bmtl._version import __version__

SUPPORTS = {
    "any number": ("gaussian", "student_t", "laplace"),
    "above 0": ("lognormal", "gamma"),
    "between 0 and 1": ("beta",),
    "0 or 1": ("bernoulli",),
    "successes, with the trials as --exposure": ("binomial",),
    "labels": ("categorical", "ordinal"),
    "counts": ("poisson", "negative_binomial", "zero_inflated_poisson"),
}
"""What outcomes may be, and their families."""

FAMILIES = tuple(chain.from_iterable(SUPPORTS.values()))
METHODS = ("svi", "nuts", "map")
TRUNKS = ("mlp", "fourier", "identity")

DESCRIPTION = """\
Fit several outcomes of the same inputs together, and say which of them should share a model."""

ENDS = """\
exit codes: 0 done; 1 the data or the fit failed, in one line on standard error; 2 the command makes no sense;
130 interrupted. 'bmtl COMMAND --help' has the options of a command, with an example."""

ADVISE = """\
Say which outcomes to merge into one function, which to let share a representation with weights of their own, and
which to model apart."""

FIT = """\
Fit all outcomes together: one trunk that they share, a head and a weight for each."""

REPORT = """\
Write the report of a saved fit: convergence, predictive densities, noises and weights, what each input does."""

PREDICT = """\
Predict the outcomes of a saved fit at new inputs. For each outcome there is a column with its expected value, in its
own units, and two with an interval for a new observation (NAME_low, NAME_high). Of a yes/no outcome the expected value
is its probability, with an interval for that; outcomes with labels have such a column for each (NAME[label])."""

FAMILY_HELP = "\n".join(
    ["families, by what an outcome may be:", *(f"  {own}: {', '.join(names)}" for own, names in SUPPORTS.items())]
)

EXAMPLES = {
    "advise": """\
example:
  bmtl advise people.csv --output visits:poisson --output cost:gaussian --input age,income \\
      --exposure visits=days --report advice.html --save fit.nc""",
    "fit": """\
example:
  bmtl fit people.csv --output visits:poisson --output cost:gaussian --input age,income --save fit.nc""",
    "report": """\
example:
  bmtl report fit.nc --out fit.html""",
    "predict": """\
example:
  bmtl predict fit.nc new.csv --exposure visits=days --out predicted.csv""",
}


class UsageError(Exception):
    """Words that argparse lets through, but that make no sense together or for these data."""


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    made = argparse.ArgumentParser(
        "bmtl", description=DESCRIPTION, epilog=ENDS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--version", action="version", version=f"bmtl {__version__}")
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)

    advise = _command(commands, "advise", "should these outcomes share one model?", ADVISE, FAMILY_HELP)
    _data(advise)
    how = advise.add_argument_group("how")
    how.add_argument(
        "--folds", type=_folds, default=("row", None, 5), metavar="FOLDS",
        help="what is left out to compare models: K parts of the rows at random, 'time:COLUMN' (later rows, given "
        "earlier ones) or 'group:COLUMN' (whole groups), with ':K' after the column for K parts; default 5",
    )
    how.add_argument(
        "--importance", action="append", default=[], type=_weight, metavar="NAME=NUMBER",
        help="weight of an outcome in the comparison of models; default 1; repeat for more",
    )
    how.add_argument(
        "--protect", action="append", default=[], type=_names, metavar="NAME[,NAME...]",
        help="outcomes for which no harm beyond noise is accepted",
    )
    _method(how)
    _results(advise, "the advice")

    fit = _command(commands, "fit", "fit outcomes together", FIT, FAMILY_HELP)
    _data(fit)
    how = fit.add_argument_group("how")
    how.add_argument(
        "--model", default="SharedTrunk",
        help="SharedTrunk (default), Decoupled (nothing is shared), Merged (one function) or another installed one "
        "with a trunk",
    )
    _method(how)
    _results(fit, "the fit")

    report = _command(commands, "report", "report on a saved fit", REPORT)
    report.add_argument("fit", type=Path, metavar="FIT", help="netCDF file written by --save")
    report.add_argument("--out", type=Path, required=True, metavar="FILE.html", help="the report, one HTML file")

    predict = _command(commands, "predict", "predict outcomes at new inputs", PREDICT)
    predict.add_argument("fit", type=Path, metavar="FIT", help="netCDF file written by --save")
    predict.add_argument("data", metavar="DATA", help="new inputs: CSV, parquet, or - for CSV on standard input")
    _exposure(predict)
    predict.add_argument("--out", default="-", metavar="FILE", help="CSV or parquet; default: standard output")
    predict.add_argument("--prob", type=_probability, default=0.89, help="probability inside intervals; default 0.89")
    predict.add_argument("--seed", type=int, help="of the drawn outcomes; default: the fit's")
    return made


def _command(commands: Any, name: str, short: str, long: str, more: str = "") -> argparse.ArgumentParser:
    epilog = "\n\n".join(part for part in (more, EXAMPLES[name]) if part)
    made = commands.add_parser(
        name, help=short, description=long, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--debug", action="store_true", help="show where an error comes from, and all warnings")
    return made


def _data(command: argparse.ArgumentParser) -> None:
    data = command.add_argument_group("data")
    data.add_argument("data", metavar="DATA", help="CSV, parquet, or - for CSV on standard input; one row a unit")
    data.add_argument(
        "--output", action="append", required=True, type=_output, metavar="NAME:FAMILY",
        help="column of an outcome and its family; repeat for more; empty cells are not observed",
    )
    data.add_argument(
        "--input", action="append", required=True, type=_names, metavar="NAME[,NAME...]", help="columns of inputs"
    )
    data.add_argument(
        "--group", metavar="COLUMN", help="one outcome, and each group of rows that this column names is one task"
    )
    _exposure(data)
    data.add_argument(
        "--categorical", action="append", default=[], type=_names, metavar="NAME[,NAME...]",
        help="inputs whose numbers are labels, such as postcodes; text is taken so anyway",
    )
    data.add_argument(
        "--levels", action="append", default=[], type=_levels, metavar="NAME=A,B,C",
        help="labels of an ordinal outcome of text, from the lowest to the highest",
    )


def _exposure(to: Any) -> None:
    to.add_argument(
        "--exposure", action="append", default=[], type=_assigned, metavar="NAME=COLUMN",
        help="column with the exposure of a count (time, area), or the number of trials of a binomial outcome",
    )


def _method(how: Any) -> None:
    how.add_argument("--trunk", choices=TRUNKS, default="mlp", help="features of the inputs; identity: linear models")
    how.add_argument(
        "--method", choices=METHODS, default="svi",
        help="variational inference (default), the no-U-turn sampler, or the posterior mode",
    )
    how.add_argument(
        "--set", action="append", default=[], type=_setting, metavar="OPTION=VALUE", dest="settings",
        help="an option of the method: restarts=1, draws=2000, chains=2, ...",
    )
    how.add_argument("--engine", choices=("auto", "numpyro", "pyro"), default="auto", help="default: whichever suits")
    how.add_argument("--seed", type=int, default=0, help="same seed, same numbers; default 0")


def _results(command: argparse.ArgumentParser, what: str) -> None:
    results = command.add_argument_group("results")
    results.add_argument("--report", type=Path, metavar="FILE.html", help=f"write {what} to one HTML file")
    results.add_argument("--save", type=Path, metavar="FILE.nc", help="write the fit, for 'report' and 'predict'")
    results.add_argument("--json", action="store_true", help="print JSON instead of text")


def _reads(read: Callable[[str], Any], form: str) -> Callable[[str], Any]:
    """A type for argparse whose errors say what was expected."""

    def checked(text: str) -> Any:
        try:
            return read(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {form}, got {text!r}") from None

    return checked


def _two(text: str, mark: str) -> tuple[str, str]:
    first, _, second = text.rpartition(mark) if mark == ":" else text.partition(mark)
    if not (first and second):
        raise ValueError
    return first, second


def _read_names(text: str) -> list[str]:
    (names,) = csv.reader([text])
    names = [name.strip() for name in names]
    if not names or not all(names):
        raise ValueError
    return names


def _read_levels(text: str) -> tuple[str, list[str]]:
    name, levels = _two(text, "=")
    return name, _read_names(levels)


def _read_weight(text: str) -> tuple[str, float]:
    name, value = _two(text, "=")
    return name, float(value)


def _read_setting(text: str) -> tuple[str, Any]:
    name, value = _two(text, "=")
    try:
        return name, json.loads(value.lower())
    except ValueError:
        return name, value


def _read_folds(text: str) -> tuple[str, str | None, int]:
    """Kind, column and number of parts."""
    kind, _, rest = text.partition(":")
    if not rest:
        return "row", None, int(kind)
    if kind not in ("time", "group"):
        raise ValueError
    column, _, k = rest.rpartition(":")
    return (kind, column, int(k)) if column and k.isdigit() else (kind, rest, 5)


def _read_probability(text: str) -> float:
    if not 0 < float(text) < 1:
        raise ValueError
    return float(text)


_output = _reads(lambda text: _two(text, ":"), "NAME:FAMILY, such as visits:poisson")
_names = _reads(_read_names, "names of columns with commas between them")
_assigned = _reads(lambda text: _two(text, "="), "NAME=COLUMN, such as visits=days")
_levels = _reads(_read_levels, "NAME=A,B,C, such as grade=low,middle,high")
_weight = _reads(_read_weight, "NAME=NUMBER, such as visits=2")
_setting = _reads(_read_setting, "OPTION=VALUE, such as restarts=1")
_folds = _reads(_read_folds, "a number, time:COLUMN or group:COLUMN")
_probability = _reads(_read_probability, "a probability between 0 and 1")
