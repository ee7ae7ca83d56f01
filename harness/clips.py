"""Items that may be clips: networks run on frames, and a clip's feature is the mean of those of its frames.

Learners and estimators work on items [N, ...] and need not know which kind they are. Shape letters: N items, T frames
of a clip, S image side, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lite_bench.harness.core import Draw, Encode, Estimator, FeatureLearner, Learner, Support
from lite_bench.harness.errors import IncompatibleError

Network = Callable[[Tensor], Tensor]
IMAGE_DIMENSIONS = 4


def frames_per_item(images: Tensor) -> int:
    """Count the frames of each item: 1 of images [N, 3, S, S], T of clips [N, T, 3, S, S]."""
    return 1 if images.ndim == IMAGE_DIMENSIONS else images.shape[1]


def items_at_once(images: Tensor, at_once: int) -> int:
    """Say how many items make at most ``at_once`` images; at least one."""
    return max(1, at_once // frames_per_item(images))


def per_item(network: Network, images: Tensor) -> Tensor:
    """Apply ``network``, which maps [n, 3, S, S] to [n, D], to items; gives [N, D], of a clip the mean over frames."""
    if images.ndim == IMAGE_DIMENSIONS:
        return network(images)
    return network(images.flatten(0, 1)).reshape(*images.shape[:2], -1).mean(1)


class ItemEncode:
    """An `Encode` of items that may be clips, by one of images."""

    def __init__(self, inner: Encode) -> None:
        """Wrap ``inner``, whose ``chunk`` counts items."""
        self.inner = inner
        self.chunk = inner.chunk

    def __call__(self, network: Network, images: Tensor) -> Tensor:
        """Encode items to [N, D]."""
        return self.inner(partial(per_item, network), images)

    def __getattr__(self, name: str) -> Any:
        """Give the optional methods of the inner one."""
        return getattr(self.inner, name)


@contextmanager
def started_task(estimator: Estimator, support: Support, generator: torch.Generator) -> Iterator[Draw]:
    """Start on a task whose items may be clips; ``estimator.chunk`` counts images outside, and items inside."""
    images = estimator.chunk
    estimator.chunk = items_at_once(support.images, images)
    try:
        yield estimator.begin(support, generator)
    finally:
        estimator.chunk = images


def classify(learner: Learner, state: Any, images: Tensor) -> Tensor:
    """Compute logits [M, C] of query items.

    Raises:
        IncompatibleError: they are clips, and the learner has no features to average.
    """
    if images.ndim == IMAGE_DIMENSIONS:
        return learner.classify(state, images)
    own = feature_learner(learner)
    return own.logits(state, per_item(partial(own.features, state), images))


def feature_learner(learner: Learner) -> FeatureLearner:
    """Give ``learner`` as one that classifies in two steps.

    Raises:
        IncompatibleError: it does not.
    """
    if not isinstance(learner, FeatureLearner):
        raise IncompatibleError(
            f"Learner {type(learner).__name__} classifies images in one step, but this suite averages the features of "
            "a video's frames; give it the methods features(state, images) and logits(state, features)."
        )
    return learner
