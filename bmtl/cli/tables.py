"""Tables in files and on standard streams, and what is wrong with them in terms of the file."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bmtl._frames import at_rows
from bmtl.errors import TaskError

STREAM = "-"
PARQUET = (".parquet", ".pq")
TABS = (".tsv", ".tab")
FORMAT = "%.7g"
"""Numbers in CSV: predictions are computed in single precision."""


def called(path: str) -> str:
    """What a message calls a file."""
    return "standard input" if path == STREAM else path


def read(path: str) -> pd.DataFrame:
    """A table from CSV (tabs in ``.tsv``; packed files as pandas has them), parquet, or CSV on standard input.

    Raises
    ------
    TaskError
        If it cannot be read; the message names the file.
    """
    try:
        if path == STREAM:
            return pd.read_csv(sys.stdin)
        suffixes = Path(path).suffixes
        if suffixes[-1:] and suffixes[-1] in PARQUET:
            return pd.read_parquet(path)
        return pd.read_csv(path, sep="\t" if set(suffixes) & set(TABS) else ",")
    except FileNotFoundError:
        raise TaskError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise TaskError(f"{path} is a folder, not a table") from None
    except UnicodeDecodeError as error:
        raise TaskError(f"{called(path)} is not text in UTF-8 ({error.reason}): save it as UTF-8") from error
    except (OSError, ValueError, ImportError) as error:
        raise TaskError(f"{called(path)} cannot be read: {error}") from error


def write(table: pd.DataFrame, path: str) -> None:
    """A table as CSV or parquet, or as CSV on standard output."""
    if Path(path).suffix in PARQUET:
        table.to_parquet(path, index=False)
    else:
        to = sys.stdout if path == STREAM else path
        table.to_csv(to, index=False, float_format=FORMAT, sep="\t" if set(Path(path).suffixes) & set(TABS) else ",")


@contextmanager
def of_file(path: str) -> Iterator[None]:
    """Say in errors which file they are about, and how its rows are counted."""
    try:
        yield
    except TaskError as error:
        rows = " (row 0 is the first below the header)" if re.search(r"\brows? \d", str(error)) else ""
        raise TaskError(f"{called(path)}: {error}{rows}") from error


def with_numbers(frame: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """The frame, after checking that columns of text that hold a number hold nothing else.

    One cell that is no number makes text of a whole column of CSV, and every number in it a level of its own.

    Raises
    ------
    TaskError
        If one holds both.
    """
    for name in columns:
        if name not in frame or pd.api.types.is_numeric_dtype(frame[name]):
            continue
        cells = frame[name]
        numbers = pd.to_numeric(cells, errors="coerce")
        bad = np.flatnonzero(numbers.isna() & cells.notna())
        if 0 < len(bad) < cells.notna().sum():
            raise TaskError(f"column {name!r} has cells that are not numbers: {at_rows(bad, list(cells.iloc[bad]))}")
    return frame


def print_json(document: dict[str, Any]) -> None:
    """Print a document of tables, numbers and text; what is not finite is null."""
    print(json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, pd.DataFrame):
        return _plain(value.to_dict("records"))
    if isinstance(value, dict):
        return {str(key): _plain(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(own) for own in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
