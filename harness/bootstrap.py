"""Bootstrap by clusters: scores of one cluster, such as the videos of one user, are drawn together or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COUNTS_AT_ONCE = 2**19
"""Bootstrap counts drawn at once: 4 MB as 64-bit integers."""
KEPT_COUNTS = 2**26
"""The most bootstrap counts, of a byte each, kept for the next column with as many clusters."""


def clustered_interval(
    values: Sequence[float], clusters: Sequence[str], draws: int = 10_000, seed: int = 0
) -> tuple[float, float] | None:
    """95 % percentile interval of the mean of ``values`` by a bootstrap that resamples whole clusters.

    Scores of one cluster (the repeated videos of one user) are not independent, which an interval over single scores
    takes them to be; drawing users instead of scores, with replacement, keeps what they have in common together.

    Args:
        values: the scores.
        clusters: what each score belongs to.
        draws: bootstrap samples.
        seed: of the samples; the interval is a pure function of all arguments.

    Returns:
        lower and upper end, or None for fewer than two clusters.
    """
    means = resampled_means(values, clusters, draws, seed)
    return None if means is None else percentile_interval(means)


def percentile_interval(means: NDArray[np.float64]) -> tuple[float, float]:
    """95 % percentile interval of bootstrap samples ``means`` [draws]."""
    import numpy as np  # imported here: `eval --help` needs no numpy

    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def resampled_means(
    values: Sequence[float], clusters: Sequence[str], draws: int = 10_000, seed: int = 0
) -> NDArray[np.float64] | None:
    """Bootstrap means of ``values``, each over K of the K clusters drawn with replacement, float64 [draws].

    Columns with the same number of clusters share what is drawn, whatever their values: drawing costs a hundred times
    as much as the means. For independent columns, shuffle one against the other.

    Args:
        values: the scores.
        clusters: what each score belongs to.
        draws: bootstrap samples.
        seed: of the samples.

    Returns:
        the means, or None for fewer than two clusters.
    """
    import numpy as np

    number = {name: index for index, name in enumerate(sorted(set(clusters)))}
    k = len(number)
    if k < 2:
        return None
    of_value = np.asarray([number[cluster] for cluster in clusters])
    sums = np.bincount(of_value, weights=np.asarray(values, dtype=np.float64))
    sizes = np.bincount(of_value).astype(np.float64)
    kept = k * draws <= KEPT_COUNTS
    parts = _kept_counts(k, draws, seed) if kept else _cluster_counts(k, draws, seed)
    drawn = (counts.astype(np.float64) for counts in parts)
    if (sizes == sizes[0]).all():
        return np.concatenate([counts @ sums for counts in drawn]) / len(values)
    return np.concatenate([(counts @ sums) / (counts @ sizes) for counts in drawn])


def _cluster_counts(k: int, draws: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Draw how often each of ``k`` clusters is in a bootstrap sample: [draws, k] in parts of a few megabytes.

    No count reaches 256: the chance is below 1e-500.
    """
    import numpy as np

    generator = np.random.Generator(np.random.Philox(seed))
    at_once = max(1, COUNTS_AT_ONCE // k)
    for first in range(0, draws, at_once):
        size = min(at_once, draws - first)
        yield generator.multinomial(k, np.full(k, 1 / k), size=size).astype(np.uint8)


@lru_cache(maxsize=4)
def _kept_counts(k: int, draws: int, seed: int) -> tuple[NDArray[np.uint8], ...]:
    """Keep the counts of the last few numbers of clusters: columns of a table mostly have the same."""
    return tuple(_cluster_counts(k, draws, seed))
