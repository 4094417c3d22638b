"""What every family is: a likelihood, a link, a noise parameter and a Fisher weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bmtl.noise import Scale

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Family:
    """Distribution of one task's outcome given its linear predictor ``eta`` and its noise.

    Arrays broadcast against each other; a family holds no data. ``noise`` is ignored by families
    whose `noise_name` is None, ``exposure`` by those that do not take one (pass 1.0).

    Attributes
    ----------
    name : str
        The word users type.
    link : str
        Name of the link: ``identity``, ``logit`` or ``log``.
    noise_name : str or None
        What the noise parameter is, in words; None where the family has none.
    standardised : bool
        Whether outcomes are centred and scaled before they are modelled.
    takes_exposure : bool
        Whether the mean is proportional to an exposure.
    support : str
        The outcomes allowed, in words, for error messages.
    amplitude : float
        Prior scale of the linear predictor's spread over the inputs.
    noise_dims : int
        Dimensions of one task's noise: 0 where it is a number, 1 where it is a vector.
    """

    name: ClassVar[str]
    link: ClassVar[str]
    noise_name: ClassVar[str | None]
    standardised: ClassVar[bool] = False
    takes_exposure: ClassVar[bool] = False
    support: ClassVar[str]
    amplitude: ClassVar[float] = 1.0
    noise_dims: ClassVar[int] = 0

    @property
    def n_predictors(self) -> int:
        """Linear predictors of one task; where there are several they are the last dimension of ``eta``."""
        return 1

    def valid(self, y: Array) -> NDArray[np.bool_]:
        """Whether each outcome lies in the family's support (same shape as ``y``)."""
        raise TypeError(f"{type(self).__name__} does not define its support")

    def intercept(self, y: Array, exposure: Array | float = 1.0) -> tuple[float | Array, float]:
        """Location (one a linear predictor) and scale of the prior on the intercept, from the outcomes of one task."""
        raise TypeError(f"{type(self).__name__} does not define its intercept prior")

    def reference(self, y: Array, exposure: Array | float = 1.0) -> Array:
        """What the prior on the family's own parameters is centred at, from the outcomes of one task; here nothing."""
        return np.empty(0)

    def sample_noise(self, e: Any, name: str, prior: Scale, unit: Array, reference: Array) -> Any:
        """Draw the noise of some tasks as the site ``name``; ones where the family has none.

        Parameters
        ----------
        prior : Scale
            The model's prior on noises.
        unit : ndarray, shape (tasks,)
            The user's unit of each outcome.
        reference : ndarray, shape (tasks, …)
            `reference` of each task.

        Returns
        -------
        array, shape (tasks,) or (tasks, m) where ``noise_dims`` is 1
        """
        ones = np.ones(len(unit))
        return e.asarray(ones) if self.noise_name is None else prior.sample(e, name, ones, unit)

    def distribution(self, e: Any, eta: Any, noise: Any, exposure: Any) -> Any:
        """The distribution of the outcomes in the engine ``e``, batch shape that of the broadcast arguments."""
        raise TypeError(f"{type(self).__name__} does not define its distribution")

    def mean(self, xp: Any, eta: Any, noise: Any, exposure: Any) -> Any:
        """Mean outcome, in the array namespace ``xp``."""
        raise TypeError(f"{type(self).__name__} does not define its mean")

    def weight(self, xp: Any, eta: Any, noise: Any, exposure: Any) -> Any:
        """Expected Fisher information of one observation about its linear predictor."""
        raise TypeError(f"{type(self).__name__} does not define its weight")

    def score(self, y: Array, eta: Array, noise: Array | float, exposure: Array | float = 1.0) -> Array:
        """Derivative of the log-likelihood of ``y`` by ``eta`` (numpy)."""
        raise TypeError(f"{type(self).__name__} does not define its score")

    def log_prob(self, y: Array, eta: Array, noise: Array | float, exposure: Array | float = 1.0) -> Array:
        """Pointwise log-likelihood (numpy)."""
        raise TypeError(f"{type(self).__name__} does not define its likelihood")
