"""What the commands do."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import bmtl
from bmtl.cli import tables
from bmtl.cli.parser import UsageError
from bmtl.errors import TaskError
from bmtl.families import FAMILIES, Family, Labelled
from bmtl.fitting.settings import resolve
from bmtl.storage import model_class
from bmtl.trees import variables

ROWS_AT_ONCE = 2000
"""Rows predicted at a time: each has as many draws as the fit."""


def advise(options: Namespace) -> None:
    """``bmtl advise``."""
    settings = _settings(options)
    _check_places(options.report, options.save)
    frame = tables.read(options.data)
    with tables.of_file(options.data):
        tasks = _tasks(options, frame)
        folds = _folds(options, frame)
        advice = bmtl.advise(
            model_class("SharedTrunk")(_trunk(options)), tasks, method=settings, engine=options.engine,
            seed=options.seed, folds=folds, protect=_flat(options.protect),
        )
    _write(options, advice.report, advice.fit)
    if options.json:
        tables.print_json({
            "question": advice.question, "verdict": advice.verdict, "probability": advice.probability,
            "arrangement": str(advice.arrangement), **advice.arrangement.to_json(), "reason": advice.reason,
            "converged": advice.fit.converged, "warnings": advice.warnings, "evidence": advice.evidence,
            "seed": options.seed, "pairs": advice.pairs, "tasks": advice.tasks, "arrangements": advice.arrangements,
            "seconds": advice.seconds, "versions": advice.versions,
        })
    else:
        print(advice)


def fit(options: Namespace) -> None:
    """``bmtl fit``."""
    settings = _settings(options)
    try:
        model = model_class(options.model)(trunk=_trunk(options))
    except (TypeError, ValueError) as error:
        raise UsageError(f"--model: {error}") from error
    _check_places(options.report, options.save)
    frame = tables.read(options.data)
    with tables.of_file(options.data):
        tasks = _tasks(options, frame)
        found = bmtl.fit(model, tasks, method=settings, engine=options.engine, seed=options.seed)
    _write(options, found.report, found)
    elpd = None if found.method == "map" else found.elpd()
    if options.json:
        tables.print_json({
            **found.summary(), "converged": found.converged, "seed": found.seed, "checks": found.checks,
            "weights": found.weights(), "elpd": elpd,
        })
    else:
        print(found)
        if elpd is not None:
            print(f"\n{elpd.to_string(index=False, float_format=lambda value: f'{value:.2f}')}")


def report(options: Namespace) -> None:
    """``bmtl report``."""
    _check_places(options.out)
    bmtl.load(options.fit).report(options.out)
    _wrote(options.out)


def predict(options: Namespace) -> None:
    """``bmtl predict``."""
    if options.out != tables.STREAM:
        _check_places(Path(options.out))
    found = bmtl.load(options.fit)
    frame = tables.read(options.data)
    columns = _once(options.exposure, "--exposure")
    with tables.of_file(options.data):
        if frame.empty:
            raise TaskError("there are no rows")
        if missing := sorted(set(columns.values()) - set(frame.columns)):
            raise TaskError(f"no such column: {missing[0]!r}; the file has {', '.join(map(repr, frame.columns))}")
        tables.with_numbers(frame, [column.name for column in found.tasks.encoder.columns if column.kind == "number"])
        tables.with_numbers(frame, columns.values())
        # All rows are checked before any is predicted, and by their numbers in the file.
        found.tasks.standardise(frame)
        parts = [
            _predicted(found, frame[start : start + ROWS_AT_ONCE], columns, options)
            for start in range(0, len(frame), ROWS_AT_ONCE)
        ]
    tables.write(pd.concat(parts), options.out)
    if options.out != tables.STREAM:
        _wrote(Path(options.out))


COMMANDS: dict[str, Callable[[Namespace], None]] = {
    "advise": advise, "fit": fit, "report": report, "predict": predict,
}


def _tasks(options: Namespace, frame: pd.DataFrame) -> bmtl.Tasks:
    inputs, categorical = _flat(options.input), _flat(options.categorical)
    levels, exposure = _once(options.levels, "--levels"), _once(options.exposure, "--exposure")
    outputs = {name: _family(name, own, levels) for name, own in _once(options.output, "--output").items()}
    if unknown := sorted({*levels, *exposure} - set(outputs)):
        raise UsageError(f"--levels and --exposure are of outcomes, and {unknown[0]!r} is none")
    if unknown := sorted(set(categorical) - set(inputs)):
        raise UsageError(f"--categorical is of inputs, and {unknown[0]!r} is none")
    numeric = [name for name, own in outputs.items() if not isinstance(own, Labelled)]
    frame = tables.with_numbers(frame, [*inputs, *numeric, *exposure.values()])
    text = {name: frame[name].astype("string") for name in categorical if name in frame}
    frame = frame.assign(**text)
    if options.group is None:
        importance = _once(options.importance, "--importance") if "importance" in options else {}
        return bmtl.Tasks.from_frame(frame, inputs, outputs, importance=importance, exposure=exposure)
    if len(outputs) > 1:
        raise UsageError(f"--group makes tasks of the groups of one outcome, but {len(outputs)} are given")
    if getattr(options, "importance", []):
        raise UsageError("--importance is of outcomes, and with --group there is one")
    ((output, family),) = outputs.items()
    return bmtl.Tasks.from_groups(frame, inputs, output, options.group, family, exposure.get(output))


def _family(name: str, family: str, levels: dict[str, list[str]]) -> Family:
    if family not in FAMILIES:
        raise UsageError(f"--output {name}: unknown family {family!r}; known: {', '.join(FAMILIES)}")
    made = FAMILIES[family]()
    if name not in levels:
        return made
    if not isinstance(made, Labelled):
        raise UsageError(f"--levels are of categorical and ordinal outcomes, and {name!r} is {family}")
    try:
        return made.labelled(levels[name])
    except ValueError as error:
        raise UsageError(f"--levels {name}: {error}") from error


def _trunk(options: Namespace) -> Any:
    trunks = bmtl.trunks
    return {"mlp": trunks.MLP, "fourier": trunks.Fourier, "identity": trunks.Identity}[options.trunk]()


def _settings(options: Namespace) -> Any:
    try:
        return resolve(options.method, _once(options.settings, "--set"))[1]
    except (TypeError, ValueError) as error:
        raise UsageError(f"--set: {error}") from error


def _folds(options: Namespace, frame: pd.DataFrame) -> bmtl.Folds:
    kind, column, k = options.folds
    try:
        if column is None:
            return bmtl.Folds(kind, k)
        if column not in frame:
            raise TaskError(f"no such column: {column!r}; the file has {', '.join(map(repr, frame.columns))}")
        values = frame[column]
        if kind == "time" and not pd.api.types.is_numeric_dtype(values):
            values = pd.to_datetime(values, errors="coerce").where(values.notna())
            if bad := list(np.flatnonzero(values.isna())):
                raise TaskError(f"column {column!r} has cells that are neither numbers nor dates: row {bad[0]}")
        return bmtl.Folds(kind, k, values.to_numpy())
    except TaskError:
        raise
    except ValueError as error:
        raise UsageError(f"--folds: {error}") from error


def _predicted(found: bmtl.Fit, frame: pd.DataFrame, columns: dict[str, str], options: Namespace) -> pd.DataFrame:
    exposure = {name: frame[column].to_numpy(float) for name, column in columns.items()}
    tree = found.predict(frame, exposure=exposure, seed=options.seed)
    tails = [(1 - options.prob) / 2, (1 + options.prob) / 2]
    out: dict[str, np.ndarray] = {}
    for name, family, variable in zip(
        found.tasks.names, found.tasks.families, variables(found.tasks.names), strict=True
    ):
        mean = tree["mean"][variable].to_numpy()
        mean = mean.reshape(-1, *mean.shape[2:])
        if family.labels:
            of = {f"{name}[{label}]": (mean[..., k], mean[..., k]) for k, label in enumerate(family.labels)}
        else:
            new = mean if family.name == "bernoulli" else tree["predictions"][variable].to_numpy()
            of = {name: (mean, new.reshape(mean.shape))}
        for own, (expected, spread) in of.items():
            low, high = np.quantile(spread, tails, axis=0)
            out |= {own: expected.mean(axis=0, dtype=float), f"{own}_low": low, f"{own}_high": high}
    return pd.DataFrame(out)


def _flat(given: list[list[str]]) -> list[str]:
    return list(chain.from_iterable(given))


def _once(pairs: list[tuple[str, Any]], option: str) -> dict[str, Any]:
    """A mapping from pairs whose first must differ."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise UsageError(f"{option} names {name!r} twice")
        found[name] = value
    return found


def _check_places(*paths: Path | None) -> None:
    """Raise `OSError` if a file to be written has no folder or is one: better now than after the fit."""
    for path in paths:
        if path is not None and not path.resolve().parent.is_dir():
            raise OSError(f"no such folder: {path.parent}")
        if path is not None and path.is_dir():
            raise OSError(f"{path} is a folder, not a file to be written")


def _write(options: Namespace, write: Callable[[Path], None], found: bmtl.Fit) -> None:
    """Write files before anything is printed: whoever reads that may stop reading."""
    for path, make in ((options.save, found.save), (options.report, write)):
        if path is not None:
            make(path)
            _wrote(path)


def _wrote(path: Path) -> None:
    print(f"wrote {path}", file=sys.stderr)
