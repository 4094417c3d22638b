"""Multi-task models as scikit-learn estimators.

They need scikit-learn: ``pip install 'bmtl[sklearn]'``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.metrics import accuracy_score, r2_score
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import (
        check_consistent_length,
        check_is_fitted,
        check_random_state,
        column_or_1d,
        validate_data,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("bmtl.sklearn needs scikit-learn ≥ 1.6: pip install 'bmtl[sklearn]'") from error

from bmtl.advice import advise as ask
from bmtl.arrangement import Arrangement
from bmtl.families import Bernoulli, Categorical, Family, Labelled, get
from bmtl.fitting.fit import fit
from bmtl.storage import model_class
from bmtl.tasks import Tasks
from bmtl.trees import variables
from bmtl.trunks import MLP

ROWS_AT_ONCE = 256
"""Rows predicted at a time. There are never fewer (the last are repeated), so that the same row gives the same numbers
in any company, and that no number of rows has to be compiled for."""

ARRANGEMENTS = {"shared": Arrangement.shared, "decoupled": Arrangement.decoupled, "merged": Arrangement.merged}


class _MultiTask(BaseEstimator):
    """What both estimators have in common; their parameters are described there."""

    def __init__(
        self,
        *,
        trunk: Any = None,
        arrangement: str | Arrangement = "shared",
        advise: bool = False,
        method: Any = "svi",
        options: dict[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.trunk = trunk
        self.arrangement = arrangement
        self.advise = advise
        self.method = method
        self.options = options
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _fit(self, X: np.ndarray, Y: np.ndarray, families: Sequence[Family], names: Sequence[str]) -> None:
        inputs = getattr(self, "feature_names_in_", None)
        tasks = Tasks.from_arrays(X, Y, families, names, None if inputs is None else [str(name) for name in inputs])
        if isinstance(self.arrangement, str) and self.arrangement not in ARRANGEMENTS:
            raise ValueError(f"unknown arrangement {self.arrangement!r}; known: {', '.join(ARRANGEMENTS)}")
        make = ARRANGEMENTS.get(self.arrangement) if isinstance(self.arrangement, str) else None
        arrangement = self.arrangement if make is None else make(tasks.names)
        model = model_class("SharedTrunk")(trunk=MLP() if self.trunk is None else self.trunk, arrangement=arrangement)
        seed = self.random_state
        if not isinstance(seed, Integral):
            seed = check_random_state(seed).randint(np.iinfo(np.int32).max)
        how: dict[str, Any] = {"method": self.method, "seed": int(seed), "progress": False, **(self.options or {})}
        if self.advise:
            self.advice_ = ask(model, tasks, **how)
            self.fit_ = self.advice_.fit
        else:
            self.fit_ = fit(model, tasks, **how)

    def _outcomes(self, X: Any, group: str) -> Iterator[np.ndarray]:
        """Draws of ``mean`` or ``predictions`` of each task at new inputs, ``draws × rows`` (``× labels``)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        parts: list[list[np.ndarray]] = [[] for _ in self.fit_.tasks.names]
        for start in range(0, len(X), ROWS_AT_ONCE):
            block = X[start : start + ROWS_AT_ONCE]
            padded = np.pad(block, [(0, ROWS_AT_ONCE - len(block)), (0, 0)], mode="edge")
            tree = self.fit_.predict(padded)[group]
            for own, name in zip(parts, variables(self.fit_.tasks.names), strict=True):
                draws = tree[name].to_numpy().astype(float)
                own.append(draws.reshape(-1, *draws.shape[2:])[:, : len(block)])
        return (np.concatenate(own, axis=1) for own in parts)


class MultiTaskRegressor(RegressorMixin, _MultiTask):
    """Several outcomes of the same inputs, fitted together; a `bmtl.models.SharedTrunk`.

    Parameters
    ----------
    families : str, Family or sequence of these
        The likelihood of all outcomes, or of each; for labels take `MultiTaskClassifier`.
    trunk : Trunk, optional
        Features of the inputs; default ``bmtl.trunks.MLP()``.
    arrangement : {"shared", "decoupled", "merged"} or Arrangement
        Which outcomes share a trunk and a head.
    advise : bool
        Ask `bmtl.advise` for the arrangement, instead of taking the one given.
    method : {"svi", "nuts", "map"} or SVI or NUTS or MAP
        As in `bmtl.fit`.
    options : dict, optional
        Options of the method, and ``engine``, ``device`` and (of advice) ``folds``, ``protect``.
    random_state : int, RandomState instance or None
        An int is the seed of `bmtl.fit`.

    Attributes
    ----------
    fit_ : Fit
        With the posterior, ELPD, weights and reports.
    advice_ : Advice
        If it was asked for.
    n_features_in_, feature_names_in_
        As in any estimator.

    Examples
    --------
    >>> import numpy as np
    >>> from bmtl.sklearn import MultiTaskRegressor
    >>> from bmtl.trunks import Identity
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(80, 2))
    >>> Y = X @ rng.normal(size=(2, 2)) + 0.1 * rng.normal(size=(80, 2))
    >>> Y[:10, 1] = np.nan  # not observed
    >>> MultiTaskRegressor(trunk=Identity(), random_state=0).fit(X, Y).predict(X).shape
    (80, 2)
    """

    def __init__(
        self,
        families: Any = "gaussian",
        *,
        trunk: Any = None,
        arrangement: str | Arrangement = "shared",
        advise: bool = False,
        method: Any = "svi",
        options: dict[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            trunk=trunk, arrangement=arrangement, advise=advise, method=method, options=options,
            random_state=random_state,
        )
        self.families = families

    def fit(self, X: Any, y: Any) -> MultiTaskRegressor:
        """Fit.

        Parameters
        ----------
        X : array or data frame, shape (rows, inputs)
        y : array or data frame, shape (rows,) or (rows, outcomes)
            In any units; NaN where not observed.

        Returns
        -------
        MultiTaskRegressor

        Raises
        ------
        ValueError
            If the data cannot be modelled as given (`bmtl.TaskError`).
        FitError
            If the log-density is not finite.
        """
        names = _names(y)
        of_x = {"dtype": np.float64, "ensure_min_samples": 3}
        of_y = {"dtype": np.float64, "ensure_2d": False, "ensure_all_finite": "allow-nan"}
        X, y = validate_data(self, X, y, validate_separately=(of_x, of_y))
        check_consistent_length(X, y)
        self._one = y.ndim == 1
        Y = y[:, None] if self._one else y
        several = not isinstance(self.families, (str, Family))
        families = [get(own) for own in (self.families if several else [self.families] * Y.shape[1])]
        if labelled := [own.name for own in families if isinstance(own, Labelled)]:
            raise ValueError(f"outcomes with labels are for MultiTaskClassifier, got the family {labelled[0]}")
        self._fit(X, Y, families, names or [f"y{t}" for t in range(Y.shape[1])])
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Expected outcomes.

        Parameters
        ----------
        X : array or data frame, shape (rows, inputs)
        return_std : bool
            Give the standard deviations of new outcomes too, noise included.

        Returns
        -------
        array, shape (rows,) or (rows, outcomes), or two of these
        """
        mean = self._shaped([own.mean(axis=0) for own in self._outcomes(X, "mean")])
        if not return_std:
            return mean
        return mean, self._shaped([own.std(axis=0) for own in self._outcomes(X, "predictions")])

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Mean over outcomes of R², each on the rows on which it is observed."""
        found, y = self.predict(X), np.asarray(y, dtype=float)
        weights = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight)
        columns = [(y, found)] if y.ndim == 1 else list(zip(y.T, np.reshape(found, y.shape).T, strict=True))
        seen = [(own, guess, ~np.isnan(own)) for own, guess in columns]
        return float(np.mean([r2_score(own[at], guess[at], sample_weight=weights[at]) for own, guess, at in seen]))

    def _shaped(self, columns: list[np.ndarray]) -> np.ndarray:
        return columns[0] if self._one else np.column_stack(columns)


class MultiTaskClassifier(ClassifierMixin, _MultiTask):
    """Several class labels of the same inputs, fitted together; a `bmtl.models.SharedTrunk`.

    Outcomes of two classes are Bernoulli, those of more are categorical.

    Parameters
    ----------
    trunk, arrangement, advise, method, options, random_state
        As of `MultiTaskRegressor`.

    Attributes
    ----------
    fit_ : Fit
    advice_ : Advice
        If it was asked for.
    classes_ : array, or list of arrays
        The classes of the outcome, or of each outcome.
    n_features_in_, feature_names_in_
        As in any estimator.
    """

    def fit(self, X: Any, y: Any) -> MultiTaskClassifier:
        """Fit.

        Parameters
        ----------
        X : array or data frame, shape (rows, inputs)
        y : array or data frame, shape (rows,) or (rows, outcomes)
            Numbers or text, none missing.

        Returns
        -------
        MultiTaskClassifier

        Raises
        ------
        ValueError
            If an outcome has one class only, or the data cannot be modelled as given (`bmtl.TaskError`).
        FitError
            If the log-density is not finite.
        """
        names = _names(y)
        X, y = validate_data(self, X, y, multi_output=True, dtype=np.float64, ensure_min_samples=3)
        check_classification_targets(y)
        self._one = y.ndim == 1 or y.shape[1] == 1
        columns = [column_or_1d(y)] if self._one else list(y.T)
        found = [np.unique(own, return_inverse=True) for own in columns]
        if single := [t for t, (classes, _) in enumerate(found) if len(classes) < 2]:
            raise ValueError(f"outcome {single[0]} has one class only: {str(found[single[0]][0][0])!r}")
        self.classes_ = found[0][0] if self._one else [classes for classes, _ in found]
        families = [
            Bernoulli() if len(classes) == 2 else Categorical(tuple(map(str, classes.tolist()))) for classes, _ in found
        ]
        names = names or [f"y{t}" for t in range(len(found))]
        self._fit(X, np.column_stack([codes for _, codes in found]).astype(float), families, names)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The most probable classes, shape (rows,) or (rows, outcomes)."""
        if self._is_one():
            return self.classes_[np.argmax(self.predict_proba(X), axis=1)]
        both = zip(self.classes_, self.predict_proba(X), strict=True)
        return np.column_stack([classes[np.argmax(p, axis=1)] for classes, p in both])

    def predict_proba(self, X: Any) -> Any:
        """Probabilities of the classes: an array (rows, classes), or a list of them for several outcomes."""
        found = []
        for own in self._outcomes(X, "mean"):
            mean = own.mean(axis=0)
            p = mean if mean.ndim == 2 else np.column_stack([1.0 - mean, mean])
            found.append(p / p.sum(axis=1, keepdims=True))
        return found[0] if self._one else found

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy; of several outcomes the share of rows on which all are right, as in scikit-learn's own."""
        found = self.predict(X)
        if self._one:
            return float(accuracy_score(y, found, sample_weight=sample_weight))
        return float(np.average(np.all(np.asarray(y) == found, axis=1), weights=sample_weight))

    def _is_one(self) -> bool:
        check_is_fitted(self)
        return bool(self._one)


def _names(y: Any) -> list[str] | None:
    """Names of the outcomes, if they come with any."""
    if hasattr(y, "columns"):
        return [str(name) for name in y.columns]
    name = getattr(y, "name", None)
    return None if name is None else [str(name)]


__all__ = ["MultiTaskClassifier", "MultiTaskRegressor"]
