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
        Name of the link: ``identity``, ``logit``, ``log`` or ``softmax``.
    noise_name : str or None
        What the noise parameter is, in words; None where the family has none.
    standardised : bool
        Whether outcomes are centred and scaled before they are modelled.
    takes_exposure, needs_exposure : bool
        Whether the mean is proportional to an exposure, and whether there is no default for it.
    support, exposures : str
        The outcomes and the exposures allowed, in words, for error messages.
    amplitude : float
        Usual prior scale of the linear predictor's spread over the inputs.
    noise_dims : int
        Dimensions of one task's noise: 0 where it is a number, 1 where it is a vector.
    noise_is_scale : bool
        Whether the noise is a scale or a temperature: held at a value it does no more than weigh the loss.
    dispersed : bool
        Whether outcomes may well vary more around their means than the family says, as counts do. The screen then
        allows for a dispersion.
    dtype : type
        Of outcomes in the arrays that programs see.
    filler : float
        Stands there where no outcome was observed, under a mask: inside the support, so that neither the log-density
        nor its gradient can be undefined.
    """

    name: ClassVar[str]
    link: ClassVar[str]
    noise_name: ClassVar[str | None]
    standardised: ClassVar[bool] = False
    takes_exposure: ClassVar[bool] = False
    needs_exposure: ClassVar[bool] = False
    support: ClassVar[str]
    exposures: ClassVar[str] = "finite and > 0"
    amplitude: ClassVar[float] = 1.0
    noise_dims: ClassVar[int] = 0
    noise_is_scale: ClassVar[bool] = False
    dispersed: ClassVar[bool] = False
    dtype: ClassVar[type] = np.float32
    filler: ClassVar[float] = 1.0

    @property
    def n_predictors(self) -> int:
        """Linear predictors of one task; where there are several they are the last dimension of ``eta``."""
        return 1

    @property
    def labels(self) -> tuple[str, ...]:
        """What the outcomes 0, 1, … are called; empty for families whose outcomes are numbers."""
        return ()

    def valid(self, y: Array) -> NDArray[np.bool_]:
        """Whether each outcome lies in the family's support (same shape as ``y``)."""
        raise TypeError(f"{type(self).__name__} does not define its support")

    def valid_exposure(self, y: Array, exposure: Array) -> NDArray[np.bool_]:
        """Whether each exposure is one that its outcome can have (shape of both)."""
        return np.isfinite(exposure) & (exposure > 0)

    def intercept(self, y: Array, exposure: Array | float = 1.0) -> tuple[float | Array, float]:
        """Location (one a linear predictor) and scale of the prior on the intercept, from the outcomes of one task."""
        raise TypeError(f"{type(self).__name__} does not define its intercept prior")

    def spread(self, y: Array, exposure: Array | float = 1.0) -> float:
        """Prior scale of the linear predictor's spread over the inputs, from the outcomes of one task."""
        return self.amplitude

    def reference(self, y: Array, exposure: Array | float = 1.0) -> Array:
        """What the prior on the family's own parameters is set at, from the outcomes of one task; here nothing.

        Of a family with one noise: the natural scale of it, 1 if there is none.
        """
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
        scale = reference[:, 0] if reference.shape[1] else np.ones(len(unit))
        return e.asarray(scale) if self.noise_name is None else prior.sample(e, name, scale, unit)

    def distribution(self, e: Any, eta: Any, noise: Any, exposure: Any) -> Any:
        """The distribution of the outcomes in the engine ``e``, batch shape that of the broadcast arguments."""
        raise TypeError(f"{type(self).__name__} does not define its distribution")

    def mean(self, xp: Any, eta: Any, noise: Any, exposure: Any) -> Any:
        """Mean outcome, or the probability of each label (last), in the array namespace ``xp``."""
        raise TypeError(f"{type(self).__name__} does not define its mean")

    def identified(self, xp: Any, eta: Any, noise: Any) -> Any:
        """What the outcomes can say of the linear predictor: all of it, unless the family has several."""
        return eta

    def weight(self, xp: Any, eta: Any, noise: Any, exposure: Any) -> Any:
        """Expected Fisher information of one observation about its linear predictor (mean over several)."""
        raise TypeError(f"{type(self).__name__} does not define its weight")

    def score(self, y: Array, eta: Array, noise: Array | float, exposure: Array | float = 1.0) -> Array:
        """Derivative of the log-likelihood of ``y`` by ``eta`` (numpy)."""
        raise TypeError(f"{type(self).__name__} does not define its score")

    def log_prob(self, y: Array, eta: Array, noise: Array | float, exposure: Array | float = 1.0) -> Array:
        """Pointwise log-likelihood (numpy)."""
        raise TypeError(f"{type(self).__name__} does not define its likelihood")

    def draw(
        self, rng: np.random.Generator, eta: Array, noise: Array | float, exposure: Array | float = 1.0
    ) -> Array:
        """Outcomes drawn given the linear predictor of each (numpy), of the shape of the broadcast arguments."""
        raise TypeError(f"{type(self).__name__} does not define its draws")

    def entering(self, xp: Any, y: Any) -> Any:
        """Outcomes as they enter the linear predictors of other tasks: as they are, unless the family says else."""
        return y

    def gaussian_scale(self, y: Array) -> Array | None:
        """Outcomes on the scale on which they are Gaussian around ``eta``; None if there is no such scale."""
        return None

    def estimate_noise(self, y: Array, eta: Array, exposure: Array | float = 1.0) -> float | Array:
        """Estimate of the noise given the linear predictor of each outcome; 1 where there is none to estimate."""
        return 1.0
