"""Exceptions and warnings raised by bmtl."""


class TaskError(ValueError):
    """The tasks, their inputs or their outcomes cannot be modelled as given.

    The message quotes the task or column and the offending rows or values.
    """


class FitError(RuntimeError):
    """A fit could not be carried out (for example, the log-density is not finite anywhere near the prior)."""


class TaskWarning(UserWarning):
    """The tasks can be modelled, but something about them was changed or deserves a look."""


class PowerPosteriorWarning(UserWarning):
    """A fit weighs the tasks' likelihoods: its target is a power posterior, not the posterior."""


class ConvergenceWarning(UserWarning):
    """A fit finished without passing its convergence checks."""
