"""From predicted classes to the scores of a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lite_bench.harness.core import GroupScore


@dataclass(frozen=True)
class Score:
    """What a learner did on one task.

    Attributes:
        correct: queries classified correctly.
        n_query: queries in all.
        adapt_seconds: wall time of adapting, synchronised.
        classify_seconds: wall time of classifying, synchronised.
        groups: scores of the groups of queries, if there are any.
        predictions: predicted classes of each group's queries in order, if there are groups.
        failed: why there is no score, or empty.
        peak_bytes: most memory that tensors took, if it is known.
    """

    correct: int
    n_query: int
    adapt_seconds: float
    classify_seconds: float
    groups: tuple[GroupScore, ...] = ()
    predictions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    failed: str = ""
    peak_bytes: int | None = None

    @property
    def values(self) -> list[float]:
        """What is averaged over: the frame accuracy of each group, or else the task's own accuracy, 0 to 1.

        A failed task has none.
        """
        if self.failed:
            return []
        return [group.frame_accuracy for group in self.groups] or [self.correct / self.n_query]

    @property
    def accuracy(self) -> float | None:
        """Fraction of queries classified correctly, or the mean of the groups' fractions, 0 to 1; None if it failed."""
        return None if self.failed else sum(self.values) / len(self.values)


def score_group(name: str, predicted: Sequence[int], labels: Sequence[int]) -> GroupScore:
    """Score the queries of one group, in their order.

    Args:
        name: of the group.
        predicted: class of each query.
        labels: true class of each query; those of a video are all the same.
    """
    classes, true = np.asarray(predicted), np.asarray(labels)
    right = classes == true
    vote = np.bincount(classes).argmax()  # the first, that is the smallest, of several most frequent
    first = int(right.argmax()) / len(right) if right.any() else 1.0
    return GroupScore(name, len(right), float(right.mean()), float(vote == true[0]), first)


def score_groups(
    names: Sequence[str], batches: Iterable[tuple[Sequence[int], Sequence[int], Sequence[int]]]
) -> tuple[tuple[GroupScore, ...], dict[str, tuple[int, ...]]]:
    """Score all groups of a task.

    Args:
        names: of the groups, in order.
        batches: predicted classes, labels and group numbers of batches of queries, group after group.

    Returns:
        the scores, and the predicted classes by group.
    """
    predicted: list[list[int]] = [[] for _ in names]
    labels: list[list[int]] = [[] for _ in names]
    for classes, true, groups in batches:
        for each, label, group in zip(classes, true, groups, strict=True):
            predicted[group].append(each)
            labels[group].append(label)
    scores = tuple(score_group(*each) for each in zip(names, predicted, labels, strict=True))
    return scores, {name: tuple(classes) for name, classes in zip(names, predicted, strict=True)}
