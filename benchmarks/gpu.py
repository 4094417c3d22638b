"""The benchmarks of speed on CUDA: SVI steps beside plain torch ones, eager and as a graph, and many fits as one.

Usage: ``python -m benchmarks.gpu [--repeats 9] [--tf32] [--out FILE.json]``. Without a CUDA device it says so and
measures nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from benchmarks.speed import many, svi

ROWS, WIDTHS = [8_192, 131_072], [256, 2_048]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--tf32", action="store_true", help="let matrix products, ours and the plain ones, use TF32")
    parser.add_argument("--out", type=Path, help="JSON file; that of many fits stands beside it")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu: torch sees no CUDA device, so there is nothing to measure")
    torch.set_float32_matmul_precision("high" if options.tf32 else "highest")
    device = torch.device("cuda")
    print(torch.cuda.get_device_name(device), "TF32" if options.tf32 else "float32")
    svi.show(ROWS, WIDTHS, device, options.repeats, options.out)
    beside = options.out and options.out.with_stem(f"{options.out.stem}_many")
    many.show(["pyro"], str(device), options.repeats, beside)


if __name__ == "__main__":
    main()
