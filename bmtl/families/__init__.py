"""Families: the likelihood of one task's outcome. Add one by adding a file and a name to `FAMILIES`."""

from __future__ import annotations

from bmtl.families._base import Family
from bmtl.families._labelled import Labelled
from bmtl.families._tailed import Tailed
from bmtl.families.bernoulli import Bernoulli
from bmtl.families.beta import Beta
from bmtl.families.binomial import Binomial
from bmtl.families.categorical import Categorical
from bmtl.families.gamma import Gamma
from bmtl.families.gaussian import Gaussian
from bmtl.families.laplace import Laplace
from bmtl.families.lognormal import LogNormal
from bmtl.families.negative_binomial import NegativeBinomial
from bmtl.families.ordinal import Ordinal
from bmtl.families.poisson import Poisson
from bmtl.families.student_t import StudentT
from bmtl.families.zero_inflated_poisson import ZeroInflatedPoisson

FAMILIES: dict[str, type[Family]] = {
    family.name: family
    for family in (
        Gaussian, StudentT, Laplace, LogNormal, Gamma, Beta, Bernoulli, Binomial, Categorical, Ordinal,
        Poisson, NegativeBinomial, ZeroInflatedPoisson,
    )
}


def get(family: str | Family) -> Family:
    """The family of that name, or the family itself.

    Raises
    ------
    ValueError
        If no family has that name.
    """
    if isinstance(family, Family):
        return family
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}; known: {', '.join(sorted(FAMILIES))}")
    return FAMILIES[family]()


__all__ = [
    "FAMILIES", "Bernoulli", "Beta", "Binomial", "Categorical", "Family", "Gamma", "Gaussian", "Labelled", "Laplace",
    "LogNormal", "NegativeBinomial", "Ordinal", "Poisson", "StudentT", "Tailed", "ZeroInflatedPoisson", "get",
]
