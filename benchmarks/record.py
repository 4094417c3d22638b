"""What a benchmark writes: its results, and what they were made by."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

from bmtl import versions


def hardware() -> str:
    """Name of the processor."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def write(path: Path | None, **content: Any) -> None:
    """Versions, hardware and results as JSON; nothing without a path. Lists of records have a line each."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = []
    for name, value in {"versions": versions.installed(), "hardware": hardware(), **content}.items():
        records = isinstance(value, list) and value and isinstance(value[0], dict)
        text = "[\n" + ",\n".join(map(json.dumps, value)) + "\n]" if records else json.dumps(value, indent=1)
        parts.append(f"{json.dumps(name)}: {text}")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", "utf-8")


def read(path: Path | None) -> dict[str, Any]:
    """What a file holds already; nothing if there is none."""
    return json.loads(path.read_text("utf-8")) if path and path.exists() else {}
