"""Advice: should these tasks share one model?"""

from __future__ import annotations

from bmtl.advice._advice import Advice
from bmtl.advice._advise import advise

__all__ = ["Advice", "advise"]
