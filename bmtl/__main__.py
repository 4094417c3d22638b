"""``python -m bmtl``: the command line."""

from __future__ import annotations

import sys

from bmtl.cli import main

sys.exit(main())
