"""Tables in files: parquet, and what is said where it cannot be read."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bmtl.cli import tables
from bmtl.errors import TaskError

PARQUET = find_spec("pyarrow") is not None or find_spec("fastparquet") is not None


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame({"age": [31, 45, 60], "cost": [1.5, np.nan, 0.25], "region": ["a", "b", "a"]})


@pytest.mark.skipif(not PARQUET, reason="neither pyarrow nor fastparquet is installed, which pandas reads parquet with")
@pytest.mark.parametrize("suffix", tables.PARQUET)
def test_parquet_comes_back_as_it_was_written(suffix: str, frame: pd.DataFrame, tmp_path: Path) -> None:
    path = str(tmp_path / f"people{suffix}")
    tables.write(frame, path)
    pd.testing.assert_frame_equal(tables.read(path), frame)


def test_parquet_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    path.write_text("no parquet")
    with pytest.raises(TaskError, match=r"people\.parquet cannot be read: "):
        tables.read(str(path))
    with pytest.raises(TaskError, match=r"^no such file: .*other\.parquet$" if PARQUET else "other.parquet"):
        tables.read(str(tmp_path / "other.parquet"))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".tsv.gz"])
def test_text_comes_back_as_it_was_written(suffix: str, frame: pd.DataFrame, tmp_path: Path) -> None:
    path = str(tmp_path / f"people{suffix}")
    tables.write(frame, path)
    pd.testing.assert_frame_equal(tables.read(path), frame)
