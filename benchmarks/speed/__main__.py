"""``python -m benchmarks.speed``: all benchmarks of speed on the CPU, with their defaults.

nutpie and PyMC (``pip install -e '.[bench]' -c constraints.txt``) are left out where they are not installed.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

import torch

from benchmarks.speed import many, nuts, svi

REPEATS = 5


def main() -> None:
    svi.show([1024, 8192], [256], torch.device("cpu"), REPEATS, None)
    many.show(["numpyro", "pyro"], "cpu", REPEATS, None)
    sides = [name for name in nuts.SIDES if name != "nutpie" or find_spec("nutpie")]
    if "nutpie" not in sides:
        print("nutpie is not installed: left out")
    nuts.table(REPEATS, "", sides, sys.executable, None)


if __name__ == "__main__":
    main()
