"""Two learners on the same tasks: the mean difference, how far to trust it, and on what ground.

Tasks are the same for everybody, so scores come in pairs, and the interval of the mean of their differences is
narrower than that of the difference of two means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lite_bench.harness.errors import DataError
from lite_bench.harness.statistics import Scores
from lite_bench.leaderboard.intervals import Uncertainty, settle, uncertainty, uncertainty_of_mean

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Comparison:
    """The mean difference of one learner's scores less another's, over the tasks that both have done.

    Attributes:
        difference: of the means, in the unit of the scores.
        error: its standard error, or None where there is no telling.
        freedom: degrees of freedom of the t distribution behind interval and p, likewise.
        n: number of pairs.
        kind: the test in words, with its size, such as ``paired t over 600 tasks``.
        clusters: number of clusters that the pairs come in, or None if all are independent.
    """

    difference: float
    error: float | None
    freedom: float | None
    n: int
    kind: str
    clusters: int | None = None

    @property
    def uncertainty(self) -> Uncertainty | None:
        """Standard error and degrees of freedom, or None where there is no telling."""
        return None if self.error is None or self.freedom is None else Uncertainty(self.error, self.freedom)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the difference, or None where there is no telling, as where all pairs differ alike."""
        if self.uncertainty is None or (self.error == 0.0 and self.difference != 0.0):
            return None
        reach = self.uncertainty.half_width
        return self.difference - reach, self.difference + reach

    @cached_property
    def p(self) -> float | None:
        """Two-sided p of no difference, or None where there is no telling.

        If all pairs differ by the same, t is infinite, whatever their number. The p is then that of the sign test: G
        signs are all alike by chance with the probability 2^(1 - G), where G - 1 are the degrees of freedom.
        """
        from scipy.special import stdtr  # imported here: it takes a fifth of a second

        if self.error is None or self.freedom is None:
            return None
        if self.error == 0.0:
            return 1.0 if self.difference == 0.0 else 2.0**-self.freedom
        return 2.0 * float(stdtr(self.freedom, -abs(self.difference / self.error)))

    @property
    def significant(self) -> bool | None:
        """Whether p is below 0.05; None where there is no telling."""
        return None if self.p is None else self.p < SIGNIFICANCE


def compare(ours: Scores, theirs: Scores) -> Comparison | None:
    """Compare two learners' scores of one column, pair by pair; None without a key that both have.

    If scores of one cluster are not independent, and be it that one of the two alone says so, the standard error is the
    cluster-robust one of `intervals`. If every task is a cluster of its own, that is Student's paired t.
    """
    other = dict(zip(theirs.keys, theirs.values, strict=True))
    pairs = [(key, value - other[key]) for key, value in zip(ours.keys, ours.values, strict=True) if key in other]
    if not pairs:
        return None
    n, differences = len(pairs), [difference for _, difference in pairs]
    clusters = _clusters(ours, theirs, [key for key, _ in pairs])
    groups = None if clusters is None else len(set(clusters))
    what = _number(n, "task") if groups is None else f"{_number(n, 'score')} in {_number(groups, 'cluster')}"
    mean = settle(math.fsum(differences) / n)
    return _judge(mean, uncertainty(differences, clusters), n, groups, what)


def compare_groups(members: Sequence[Comparison]) -> Comparison:
    """Compare two learners' means over the sources of a group, of which both have all.

    Where every source has one score only, the sources are the sample; else they are given, and the errors of
    independent sources add up, with the degrees of freedom of Welch and Satterthwaite.

    Raises:
        DataError: there are no sources.
    """
    if not members:
        raise DataError("There is no comparison over 0 sources; a group needs at least one.")
    if len(members) == 1:
        return members[0]
    k, n = len(members), sum(member.n for member in members)
    differences = [member.difference for member in members]
    mean = settle(math.fsum(differences) / k)
    if n == k:
        return _judge(mean, uncertainty(differences), n, None, f"{k} sources")
    found = [member.uncertainty for member in members]
    known = [each for each in found if each is not None]
    if len(known) < k:
        return Comparison(mean, None, None, n, "no test: a source has one score or one cluster only")
    clustered = any(member.clusters is not None for member in members)
    groups = sum(member.clusters or member.n for member in members) if clustered else None
    return _judge(mean, uncertainty_of_mean(known), n, groups, f"{n} scores of {k} sources")


def _clusters(ours: Scores, theirs: Scores, keys: Sequence[str]) -> list[str] | None:
    """List the clusters of ``keys`` by whichever of the two has some; None if neither has."""
    for scores in (ours, theirs):
        if scores.clustered:
            of_key = dict(zip(scores.keys, scores.clusters, strict=True))
            return [of_key[key] for key in keys]
    return None


def _judge(mean: float, found: Uncertainty | None, n: int, clusters: int | None, what: str) -> Comparison:
    """Put a mean difference and its uncertainty in words and numbers."""
    if found is None:
        return Comparison(mean, None, None, n, f"no test: {what}", clusters)
    if found.error == 0.0 and mean != 0.0:
        test = "sign test, as all differ alike,"
    else:
        test = "paired t" if clusters is None else "cluster-robust t"
    return Comparison(mean, found.error, found.freedom, n, f"{test} over {what}", clusters)


def _number(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"
