"""The published training step of Simple CNAPs with LITE, rendered literally from its description.

For every query batch: draw H anew; encode H with a graph; task embedding from fresh and cached rows; FiLM; adapted
features of H with a graph; class statistics from fresh and cached features, one dense inverse per class; query batch;
backward. The rows without a gradient are computed once per task and cached. Shares nothing with our estimators, step
and head.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from lite_bench.models.simple_cnaps import SimpleCNAPs


class PublicStep:
    """One training task, as the released code runs it."""

    def __init__(self, learner: SimpleCNAPs, h: int, batch_size: int) -> None:
        """Take the networks of ``learner``; ``h`` support images carry a gradient, batches hold ``batch_size``."""
        self.body = learner.body
        self.h = h
        self.batch_size = batch_size

    def run(self, images: Tensor, labels: Tensor, queries: Tensor, targets: Tensor, way: int) -> None:
        """Accumulate the gradient of the task."""
        cached_codes = self._without_graph(self.body.set_encoder, images)
        cached_features: Tensor | None = None
        for start in range(0, len(targets), self.batch_size):
            part = slice(start, start + self.batch_size)
            order = torch.randperm(len(labels))
            chosen, rest = order[: self.h], order[self.h :]
            codes = torch.cat([self.body.set_encoder(images[chosen]), cached_codes[rest]])
            film = self.body.generators(codes.mean(0), self.body.backbone.network)

            def adapted(batch: Tensor, film: dict[str, Tensor] = film) -> Tensor:
                features: Tensor = functional_call(self.body.backbone.network, film, (self._scaled(batch),))
                return features

            if cached_features is None:
                cached_features = self._without_graph(adapted, images)
            features = torch.cat([adapted(images[chosen]), cached_features[rest]])
            means, precisions = class_statistics(features, labels[order], way)
            difference = adapted(queries[part]).unsqueeze(0) - means.unsqueeze(1)
            logits = -((difference @ precisions) * difference).sum(2).T
            loss = cross_entropy(logits, targets[part]) + 0.001 * self.body.generators.gate_energy()
            loss.backward()  # type: ignore[no-untyped-call]  # torch

    def _scaled(self, images: Tensor) -> Tensor:
        return (images.float() / 255 - self.body.backbone.mean) / self.body.backbone.std

    def _without_graph(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([network(chunk) for chunk in torch.split(images, self.batch_size)])


def class_statistics(features: Tensor, labels: Tensor, way: int) -> tuple[Tensor, Tensor]:
    """Give class means [C, D] and dense inverse covariances [C, D, D]."""
    task = covariance(features)
    means, precisions = [], []
    for label in range(way):
        own = features[labels == label]
        share = len(own) / (len(own) + 1)
        matrix = share * covariance(own) + (1 - share) * task + torch.eye(features.shape[1], device=features.device)
        means.append(own.mean(0))
        precisions.append(torch.inverse(matrix))
    return torch.stack(means), torch.stack(precisions)


def covariance(rows: Tensor) -> Tensor:
    """Unbiased covariance [D, D] of rows [n, D]."""
    centred = rows - rows.mean(0)
    return centred.T @ centred / max(1, len(rows) - 1)
