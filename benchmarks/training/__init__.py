"""Training dynamics: the classic weightings side by side, and what the diagnostics say of known problems."""
