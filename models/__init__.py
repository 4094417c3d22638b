"""The probabilistic programs, one file each."""

from __future__ import annotations

from bmtl.models.causal_tasks import CausalTasks
from bmtl.models.decoupled import Decoupled
from bmtl.models.from_program import FromProgram
from bmtl.models.merged import Merged
from bmtl.models.shared_trunk import SharedTrunk

__all__ = ["CausalTasks", "Decoupled", "FromProgram", "Merged", "SharedTrunk"]
