"""Checks of names, inputs and other arguments that users hand in, and the inputs that are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bmtl import families as _families
from bmtl._frames import Array, Column, Encoder, check_finite, listing, quoted, show
from bmtl.errors import TaskError
from bmtl.families import Family

if TYPE_CHECKING:
    from bmtl.tasks import Tasks

Index = NDArray[np.int64]

EPS = float(np.finfo(np.float64).eps)

# Fewer observed outcomes than this say nothing about both a level and a slope.
MIN_CELLS = 3


def check_names(names: Iterable[Any], what: str, least: int = 1) -> tuple[str, ...]:
    """The names as a tuple, after checking that they are strings, that there are so many, and that none is repeated."""
    if isinstance(names, str):
        raise TaskError(f"{what}s must be a list of names, got the single string {names!r}")
    names = tuple(names)
    if len(names) < least:
        raise TaskError(f"no {what}s given")
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise TaskError(f"{what} names must be strings, got {listing(map(show, wrong))}")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise TaskError(f"duplicate {what} names: {quoted(repeated)}")
    return names


def check_family(family: Any, task: str) -> Family:
    """The family of one task, from its name or as it is."""
    if not isinstance(family, (str, Family)):
        raise TaskError(f"the family of task {task!r} must be a name or a Family, got {show(family)}")
    try:
        return _families.get(family)
    except ValueError as error:
        raise TaskError(f"task {task!r}: {error}") from error


def check_outputs(outputs: Any) -> tuple[tuple[str, ...], tuple[Family, ...]]:
    """Names and families of the outcomes from a mapping of one to the other."""
    if not isinstance(outputs, Mapping):
        raise TaskError(f"outputs must map each outcome column to its family, got {type(outputs).__name__}")
    names = check_names(outputs, "output")
    return names, tuple(check_family(outputs[name], name) for name in names)


def check_importance(importance: Mapping[str, float] | Sequence[float] | None, names: tuple[str, ...]) -> Array:
    """One weight a task, from a mapping by task name (others weigh 1) or a sequence in task order."""
    if importance is None:
        return np.ones(len(names))
    if not isinstance(importance, Mapping):
        importance = list(importance)
        if len(importance) != len(names):
            raise TaskError(f"importance has {len(importance)} values for {len(names)} tasks")
        importance = dict(zip(names, importance, strict=True))
    reject_unknown(importance, names, "importance")
    weights = np.ones(len(names))
    for name, value in importance.items():
        if not (isinstance(value, (int, float, np.integer, np.floating)) and np.isfinite(value) and value > 0):
            raise TaskError(f"the importance of task {name!r} must be finite and > 0, got {show(value)}")
        weights[names.index(name)] = value
    return weights


def reject_unknown(given: Iterable[str], names: tuple[str, ...], what: str) -> None:
    """Raise `TaskError` if something given by task names an unknown task."""
    unknown = [name for name in given if name not in names]
    if unknown:
        raise TaskError(f"{what} names unknown tasks: {quoted(unknown)}; the tasks are {quoted(names, shown=20)}")


def reject_shared(what: str, names: Iterable[str], other: str, others: Sequence[str]) -> None:
    """Raise `TaskError` if a column is given two roles that exclude each other."""
    shared = [name for name in names if name in others]
    if shared:
        raise TaskError(f"{quoted(shared)} cannot be both {what} and {other}")


def check_roles(inputs: Sequence[str], output: str, group: str, offset: Sequence[str]) -> None:
    """Raise `TaskError` if columns of grouped data have two roles; ``offset`` is the exposure, if there is one."""
    reject_shared("outcome", [output], "input", inputs)
    reject_shared("outcome", [output], "group", [group])
    reject_shared("group", [group], "input", inputs)
    reject_shared("exposure column", offset, "outcome", [output])
    reject_shared("exposure column", offset, "group", [group])


def as_matrix(values: Any, name: str, columns: str) -> Array:
    """A fresh float64 matrix; None and NaN become NaN.

    Raises
    ------
    TaskError
        If the values are not numbers, or not 2-D.
    """
    try:
        raw = np.asarray(values)
    except ValueError as error:
        raise TaskError(f"{name} must be 2-D (rows × {columns}): {error}") from error
    if raw.ndim != 2:
        raise TaskError(f"{name} must be 2-D (rows × {columns}), got shape {raw.shape}")
    if raw.dtype.kind not in "biuf":
        numeric = (int, float, np.number, np.bool_, type(None))
        bad = [at for at in np.ndindex(raw.shape) if not isinstance(raw[at], numeric) or np.iscomplexobj(raw[at])]
        if bad:
            cells = listing(f"row {row}, column {column} ({show(raw[row, column])})" for row, column in bad)
            raise TaskError(f"{name} has cells that are not numbers: {cells}")
    return np.array(raw, dtype=np.float64)


def check_arrays(
    X: Any, Y: Any, inputs: Sequence[str] | None, names: Sequence[str] | None
) -> tuple[Array, Array, tuple[str, ...], tuple[str, ...]]:
    """X (rows × d), Y (rows × T), and the d input and T task names, checked against each other."""
    Y = as_matrix(Y, "Y", "tasks")
    X = np.empty((len(Y), 0)) if X is None else as_matrix(X, "X", "inputs")
    if len(X) == 0 or len(Y) == 0:
        raise TaskError(f"no rows: X has {len(X)} and Y has {len(Y)}")
    if len(X) != len(Y):
        raise TaskError(f"X has {len(X)} rows but Y has {len(Y)}")
    inputs = check_names([f"x{j}" for j in range(X.shape[1])] if inputs is None else inputs, "input", least=0)
    names = check_names([f"y{t}" for t in range(Y.shape[1])] if names is None else names, "output")
    for what, given, expected in [("inputs", inputs, X.shape[1]), ("names", names, Y.shape[1])]:
        if len(given) != expected:
            raise TaskError(f"{what} has {len(given)} entries ({quoted(given)}) for {expected} columns")
    reject_shared("outcome", names, "input", inputs)
    for name, values in zip(inputs, X.T, strict=True):
        check_finite(name, values)
    return X, Y, inputs, names


def check_families(families: Any, names: tuple[str, ...]) -> tuple[Family, ...]:
    """One family a task, from their names or as they are."""
    if isinstance(families, (str, Family)):
        raise TaskError(f"families must be a list with one family a task, got the single family {families!r}")
    families = list(families)
    if len(families) != len(names):
        raise TaskError(f"families has {len(families)} entries for {len(names)} tasks ({quoted(names)})")
    return tuple(check_family(family, name) for family, name in zip(families, names, strict=True))


def check_masks(masks: Sequence[Any], names: tuple[str, ...], rows: tuple[Index, ...]) -> list[NDArray[np.bool_]]:
    """One boolean mask a task over its cells."""
    if len(masks) != len(names):
        raise TaskError(f"expected one mask for each of the {len(names)} tasks, got {len(masks)}")
    masks = [np.asarray(mask) for mask in masks]
    for name, r, mask in zip(names, rows, masks, strict=True):
        if mask.dtype != np.bool_ or mask.shape != r.shape:
            raise TaskError(
                f"the mask of task {name!r} must be {r.size} booleans, got {mask.dtype} of shape {mask.shape}"
            )
    return masks


def read_only(values: Any, dtype: type) -> NDArray[Any]:
    """The values as an array that nothing changes any more."""
    values = np.asarray(values, dtype=dtype)
    # Views and writeable arrays may change under us; arrays frozen before are shared.
    if values.flags.writeable or values.base is not None:
        values = values.copy()
        values.flags.writeable = False
    return values


def mean_and_sd(values: Array) -> tuple[Array, Array]:
    """Mean and standard deviation (ddof=0) by column, without overflow or underflow of the squares."""
    largest = np.max(np.abs(values), axis=0)
    # A power of two, so that scaling by it is exact.
    unit = np.ldexp(1.0, np.frexp(np.where(largest > 0, largest, 1.0))[1] - 1)
    scaled = values / unit
    return unit * np.mean(scaled, axis=0), unit * np.std(scaled, axis=0)


def is_constant(values: Array) -> bool:
    """Whether the values differ by no more than rounding."""
    low, high = float(np.min(values)), float(np.max(values))
    return bool(high / 2 - low / 2 <= 4 * EPS * max(abs(low), abs(high)))


def distinct_inputs(X: Array, names: tuple[str, ...]) -> tuple[tuple[int, ...], list[str]]:
    """Positions of the inputs that are neither constant nor copies of an earlier one, and why others are not kept.

    Two inputs are copies if, standardised, they agree up to sign and rounding.
    """
    notes: dict[int, str] = {}
    for j, name in enumerate(names):
        if is_constant(X[:, j]):
            notes[j] = f"{name!r} is constant ({show(X[0, j])})"
    varying = [j for j in range(len(names)) if j not in notes]
    if not varying:
        return (), list(notes.values())
    centre, scale = mean_and_sd(X[:, varying])
    Z = (X[:, varying] - centre) / scale
    close = np.abs(Z.T @ Z) >= len(Z) * (1 - 1e-6)
    rounding = 4 * EPS * np.abs(centre) / scale
    for b in range(len(varying)):
        for a in range(b):
            if varying[a] in notes or not close[a, b]:
                continue
            sign = 1.0 if Z[:, a] @ Z[:, b] > 0 else -1.0
            if np.max(np.abs(Z[:, b] - sign * Z[:, a])) <= 1e-12 + rounding[a] + rounding[b]:
                notes[varying[b]] = _copy_note(X, names, varying[a], varying[b])
                break
    return tuple(j for j in varying if j not in notes), [notes[j] for j in sorted(notes)]


def _copy_note(X: Array, names: tuple[str, ...], original: int, copy: int) -> str:
    kind = "a copy" if np.array_equal(X[:, original], X[:, copy]) else "a rescaled copy"
    return f"{names[copy]!r} is {kind} of {names[original]!r}"


def keep_distinct(columns: tuple[Column, ...], raw: Array) -> tuple[Encoder, list[str]]:
    """The encoder of the `distinct_inputs` of the encoded columns ``raw``, and why others are not kept.

    Raises
    ------
    TaskError
        If there are inputs and every one is constant.
    """
    everything = Encoder(columns, ())
    # A single level has no indicator at all, and would otherwise vanish without a word.
    notes = [f"{c.name!r} is constant ({c.levels[0]!r})" for c in columns if not c.encoded]
    kept: tuple[int, ...] = ()
    if everything.encoded:
        kept, more = distinct_inputs(raw, check_names(everything.encoded, "encoded input"))
        notes += more
    if columns and not kept:
        raise TaskError(f"no input is left: {listing(notes)}")
    return replace(everything, kept=kept), notes


def require_inputs(tasks: Tasks, what: str) -> None:
    """Raise `TaskError` if there are no inputs; ``what`` is what needs them."""
    if not tasks.inputs:
        raise TaskError(
            f"{what} needs inputs, and these tasks have none: without inputs there are graphs of causes only "
            "(bmtl.causal.dag_posterior)"
        )


def inputs_like(old: Tasks, new: Tasks) -> Array:
    """The new tasks' inputs as the old encoder would have them, in the user's units, rows × old inputs.

    Raises
    ------
    TaskError
        If they have not all of the old inputs, or others, or levels that the old tasks do not know.
    """
    columns = {column.name: column for column in old.encoder.columns}
    unknown = [column.name for column in new.encoder.columns if column.name not in columns]
    if unknown:
        raise TaskError(f"inputs that the fit does not know: {quoted(unknown)}; it has {quoted(columns, shown=20)}")
    found = dict(zip(new.inputs, new.X.T, strict=True))
    for column in new.encoder.columns:
        if column.kind == "levels":
            found |= _levels_like(columns[column.name], column, found, new.n_rows)
    missing = [name for name in old.inputs if name not in found]
    if missing:
        raise TaskError(
            f"inputs missing from the new tasks: {quoted(missing)} (not given, or dropped as constant or as copies)"
        )
    return np.column_stack([found[name] for name in old.inputs])


def _levels_like(old: Column, new: Column, found: Mapping[str, Array], n_rows: int) -> dict[str, Array]:
    """Indicators of the old levels, whichever level the new tasks take for the reference."""
    unknown = [level for level in new.levels if level not in old.levels]
    if unknown:
        raise TaskError(f"input {new.name!r} has levels that the fit does not know: {quoted(unknown)}")
    if not set(new.encoded) <= set(found):
        return {}
    own = {level: found[name] for level, name in zip(new.levels[1:], new.encoded, strict=True)}
    own[new.levels[0]] = np.ones(n_rows) - sum(own.values())
    absent = np.zeros(n_rows)
    return {name: own.get(level, absent) for level, name in zip(old.levels[1:], old.encoded, strict=True)}
