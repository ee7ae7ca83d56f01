"""95 % intervals of a column's mean, of three kinds that are never mixed and always named.

Scores of one cluster, such as a user, are not independent. With n_g of all n scores in cluster g, w_g = n_g / n, and
s_g the sum of its deviations from the mean, the standard error of the mean is the root of

    sum_g s_g^2 / (1 - w_g) / n^2,

whose square has no bias, whatever the sizes, if scores are independent after all (Bell and McCaffrey, "Bias reduction
in standard errors for linear regression with multi-stage samples", Survey Methodology 28, 2002). It is s / sqrt(n) if
every score is a cluster of its own, and the standard error of the mean of the cluster means if clusters have one size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from lite_bench.harness.bootstrap import percentile_interval, resampled_means
from lite_bench.harness.errors import DataError
from lite_bench.harness.statistics import Scores, estimate, mean_of_means

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROUNDING = 1e-14
"""Scores are fractions: what they differ by less than this is rounding."""


class Kind(StrEnum):
    """What an interval is.

    ``protocol`` is the published one, 1.96 s / sqrt(n) with the population standard deviation, over tasks or, where
    queries come in groups, over the scores of groups. ``student`` is Student's t; where scores come in clusters,
    a cluster-robust one. ``bootstrap`` resamples tasks, or whole clusters, 10,000 times and takes percentiles; of few
    tasks it is too narrow, as is the protocol's.
    """

    protocol = "protocol"
    student = "student"
    bootstrap = "bootstrap"


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, in the unit of the scores.

    Attributes:
        low: lower end.
        high: upper end.
        symmetric: whether the mean is in the middle, so that it may be written with ±.
    """

    low: float
    high: float
    symmetric: bool

    @property
    def half_width(self) -> float:
        """Half of its length."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Uncertainty:
    """How far a mean may be off.

    Attributes:
        error: its standard error.
        freedom: degrees of freedom of the t distribution that (mean - true mean) / error has.
    """

    error: float
    freedom: float

    @property
    def half_width(self) -> float:
        """Half width of the 95 % interval."""
        from scipy.special import stdtrit  # imported here: it takes a fifth of a second

        return float(stdtrit(self.freedom, 0.975)) * self.error


def uncertainty(values: Sequence[float], clusters: Sequence[str] | None = None) -> Uncertainty | None:
    """Estimate how far the mean of ``values`` may be off; None for fewer than two clusters.

    Args:
        values: the scores, fractions.
        clusters: what those have in common that are not independent; None if all are.
    """
    n = len(values)
    mean = math.fsum(values) / n if n else 0.0
    members: dict[object, list[float]] = {}
    for index, value in enumerate(values):
        members.setdefault(index if clusters is None else clusters[index], []).append(value - mean)
    if len(members) < 2:
        return None
    weights = [len(each) / n for each in members.values()]
    sums = [math.fsum(each) for each in members.values()]
    variance = math.fsum(each**2 / (1 - weight) for each, weight in zip(sums, weights, strict=True))
    return Uncertainty(settle(math.sqrt(variance) / n), _freedom(weights))


def _freedom(weights: Sequence[float]) -> float:
    """Degrees of freedom of the variance of a mean, from its G clusters' shares w_g of the scores.

    Satterthwaite's (tr M)^2 / tr M^2, where the variance is a quadratic form M of independent scores:
    M_gh = (a_g a_h)^0.5 (w_g [g = h] - w_g w_h) with a_g = 1 / (1 - w_g). That is G - 1 for clusters of one size, and
    less for others: a single large cluster among small ones tells little of how clusters vary.
    """
    if max(weights) == min(weights):
        return float(len(weights) - 1)
    squares = [weight**2 for weight in weights]
    scaled = [weight**2 / (1 - weight) for weight in weights]
    return 1 / (math.fsum(squares) + math.fsum(scaled) ** 2 - math.fsum(each**2 for each in scaled))


def uncertainty_of_mean(members: Sequence[Uncertainty]) -> Uncertainty:
    """Estimate how far the mean of k means of independent sources may be off, with equal weight.

    The squares of the errors add up; the degrees of freedom are those of Welch and Satterthwaite (Satterthwaite, "An
    approximate distribution of estimates of variance components", Biometrics Bulletin 2, 1946).

    Raises:
        DataError: there are no sources.
    """
    if not members:
        raise DataError("There is no mean of 0 sources; a group needs at least one.")
    variances = [member.error**2 for member in members]
    total = math.fsum(variances)
    if not total:
        return Uncertainty(0.0, min(member.freedom for member in members))
    spread = math.fsum((part / total) ** 2 / member.freedom for part, member in zip(variances, members, strict=True))
    return Uncertainty(math.sqrt(total) / len(members), 1 / spread)


def settle(number: float) -> float:
    """Make exactly 0 of what is rounding."""
    return 0.0 if abs(number) <= ROUNDING else number


def interval_of(scores: Scores, kind: Kind) -> Interval | None:
    """Compute the interval of the mean of ``scores``; None where there is no telling (one task, one cluster)."""
    return interval_of_mean([scores], kind)


def interval_of_mean(members: Sequence[Scores], kind: Kind) -> Interval | None:
    """Compute the interval of the mean of the means of independent sources; None where there is no telling.

    Args:
        members: of every source; one that has one score or one cluster only leaves no telling.
        kind: of interval.

    Raises:
        DataError: there are no sources, or one without scores.
    """
    found = mean_of_means([estimate(scores.values) for scores in members])
    if kind is Kind.protocol:
        return _around(found.mean, found.half_width)
    if kind is Kind.student:
        return _around(found.mean, _student_half_width(members))
    means = [_bootstrap_means(scores) for scores in members]
    present = [each for each in means if each is not None]
    if len(present) < len(means):
        return None
    return Interval(*percentile_interval(_mean_of_independent(present)), symmetric=False)


def _student_half_width(members: Sequence[Scores]) -> float | None:
    found = [uncertainty(scores.values, scores.clusters if scores.clustered else None) for scores in members]
    known = [each for each in found if each is not None]
    return uncertainty_of_mean(known).half_width if len(known) == len(found) else None


@lru_cache(maxsize=128)
def _bootstrap_means(scores: Scores) -> NDArray[np.float64] | None:
    """Resample the mean of one source; kept, as a row's groups average over the same sources."""
    return resampled_means(scores.values, scores.clusters if scores.clustered else scores.keys)


def _mean_of_independent(means: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Average bootstrap samples over sources.

    Sources with as many clusters share what is drawn: each is shuffled by itself, to be as independent as the sources.
    """
    import numpy as np

    total = means[0].copy()
    for index, each in enumerate(means[1:], start=1):
        total += np.random.Generator(np.random.Philox(index)).permutation(each)
    return total / len(means)


def _around(mean: float, half_width: float | None) -> Interval | None:
    return None if half_width is None else Interval(mean - half_width, mean + half_width, symmetric=True)
