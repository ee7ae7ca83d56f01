"""Fine-tuning of a linear head on a frozen backbone: the transfer baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from lite_bench.baselines.inner_loop import item_weights, refuse_divergence, refuse_rates, refuse_steps
from lite_bench.harness.core import Encode, Support, TaskSizes
from lite_bench.harness.errors import UsageError
from lite_bench.harness.repetition import repeated
from lite_bench.models.backbones import Backbone
from lite_bench.models.normalisation import fix_batch_statistics
from lite_bench.models.pixels import Pixels
from lite_bench.models.precision import full_precision


@dataclass(frozen=True)
class LinearHead:
    """A linear classifier on backbone features: weight [C, D] and bias [C]."""

    weight: Float[Tensor, "C D"]
    bias: Float[Tensor, " C"]


class FineTuner(nn.Module):
    """A linear head fitted to a frozen backbone's features by 50 gradient steps (ORBIT's FineTuner).

    The FineTuner of Massiceti et al., ORBIT, ICCV 2021, and of Table 1 of the LITE paper.

    A zero-initialised linear head is fitted to the support set by full-batch gradient steps; the backbone is frozen and
    in evaluation mode. Features of a frozen body never change, so they are computed once; ``recompute=true`` runs the
    body at every step, as the published costs count it, with the same answer.

    The backbone is never meta-trained, unless by ``pretrain_classes``: training is then supervised classification of
    the queries by one linear head for all tasks, whose labels must mean the same classes in each (the 84-pixel
    FineTuner of Table 1). Evaluation is as without.
    """

    task_free_features: ClassVar[bool] = True
    meta_trained: ClassVar[bool] = False
    passes: str = "1F"

    def __init__(
        self,
        backbone: Backbone,
        *,
        steps: int = 50,
        inner_lr: float = 0.1,
        optimizer: Literal["sgd", "adam"] = "sgd",
        recompute: bool = False,
        pretrain_classes: int = 0,
        batch_statistics: bool = False,
        sum_batches: bool = False,
    ) -> None:
        """Set up the learner.

        Args:
            backbone: frozen feature extractor.
            steps: gradient steps per task.
            inner_lr: their learning rate; 0.1 with SGD, 0.001 in the later Adam variant.
            optimizer: of the head.
            recompute: run the backbone at every step instead of once.
            pretrain_classes: classes that all training tasks have in common, to train the backbone on; 0 never trains
                it.
            batch_statistics: BatchNorm normalises with the statistics of the queries it sees while pre-training, as
                the published pre-training does; needs ``--gradient full``. Otherwise it uses fixed statistics.
            sum_batches: sum the mean losses of batches of ``--batch-size`` images, as the released code does, so that
                the batch size is a factor on the learning rate; else the mean over the support set.

        Raises:
            UsageError: a number is out of range, or ``batch_statistics`` are asked for without it.
        """
        super().__init__()
        refuse_steps(steps=steps)
        refuse_rates(inner_lr=inner_lr)
        if pretrain_classes < 0:
            raise UsageError(f"-P pretrain_classes={pretrain_classes} is not usable: give a number of classes, or 0.")
        if batch_statistics and not pretrain_classes:
            raise UsageError(
                "-P batch_statistics=true is for pre-training, but the backbone is frozen; give -P pretrain_classes=N "
                "too, or leave it out."
            )
        self.backbone = backbone.requires_grad_(pretrain_classes > 0)
        self.steps = steps
        self.inner_lr = inner_lr
        self.optimizer = optimizer
        self.recompute = recompute
        self.pretrain_classes = pretrain_classes
        self.batch_statistics = batch_statistics
        self.sum_batches = sum_batches
        self.passes = f"{steps}FB" if recompute else "1F"
        if pretrain_classes:
            self.head = new_head(backbone.features, pretrain_classes)
        self.train(self.training)

    @property
    def fixed_batches(self) -> bool:
        """Whether results depend on the batches: on their number, or in pre-training on what each is normalised by."""
        return self.sum_batches or (self.batch_statistics and self.training)

    def train(self, mode: bool = True) -> FineTuner:
        """Switch mode; a frozen backbone stays in evaluation mode, and its BatchNorm unless it trains on batches."""
        super().train(mode)
        if not self.pretrain_classes:
            self.backbone.eval()
        elif not self.batch_statistics:
            fix_batch_statistics(self.backbone)
        return self

    def adapt(self, support: Support, encode: Encode) -> LinearHead:
        """Fit a head; while pre-training, give the learned one, whatever the support set.

        Raises:
            DivergedError: the loss of a step was not finite.
        """
        if self.pretrain_classes and self.training:
            return self._learned_head(support.way)
        features = encode(self.backbone, support.images).detach()
        weight = features.new_zeros(support.way, features.shape[1], requires_grad=True)
        bias = features.new_zeros(support.way, requires_grad=True)
        kind = torch.optim.SGD if self.optimizer == "sgd" else torch.optim.Adam
        optimizer = kind([weight, bias], lr=self.inner_lr)
        losses = []
        for step in repeated(self.steps):
            if self.recompute and step:
                features = encode(self.backbone, support.images).detach()
            with torch.enable_grad(), full_precision(features):
                each = cross_entropy(linear(features, weight, bias), support.labels, reduction="none")
                loss = (each * item_weights(each, encode.chunk, sum_batches=self.sum_batches)).sum()
                weight.grad, bias.grad = torch.autograd.grad(loss, [weight, bias])
            losses.append(loss.detach())
            optimizer.step()
        refuse_divergence(losses)
        return LinearHead(weight.detach(), bias.detach())

    def published_macs(self, sizes: TaskSizes, network_macs: Callable[[nn.Module], int]) -> int:
        """Count one forward pass, or with ``recompute`` what is published; the head does not count.

        The published costs run the frozen body at every step, and count a backward pass of it, which never happens, as
        much as the forward pass.
        """
        body, pooling = sizes.images * network_macs(self.backbone), sizes.images * self.backbone.features
        return self.steps * (2 * body + pooling) if self.recompute else body + pooling

    def _learned_head(self, way: int) -> LinearHead:
        """Give the head that all training tasks share.

        Raises:
            UsageError: a task has another number of classes.
        """
        if way != self.pretrain_classes:
            raise UsageError(
                f"-P pretrain_classes={self.pretrain_classes} does not fit a training task of {way} classes: all "
                "training tasks must have the same classes, so choose training labels of the suite for which that is "
                "so, and give their number."
            )
        return LinearHead(self.head.weight, self.head.bias)

    def classify(self, state: LinearHead, images: Pixels[Tensor, "M 3 S S"]) -> Float[Tensor, "M C"]:
        """Apply the fitted head to query images."""
        return self.logits(state, self.features(state, images))

    def features(self, state: LinearHead, images: Pixels[Tensor, "M 3 S S"]) -> Float[Tensor, "M D"]:
        """Compute features of query images."""
        del state
        return cast("Tensor", self.backbone(images))

    def logits(self, state: LinearHead, features: Float[Tensor, "M D"]) -> Float[Tensor, "M C"]:
        """Apply the fitted head to query features."""
        with full_precision(features):
            return linear(features, state.weight, state.bias)


def new_head(features: int, classes: int) -> nn.Linear:
    """Make a linear classifier with weights by Kaiming's uniform rule over the fan-out and no bias at first."""
    head = nn.Linear(features, classes)
    nn.init.kaiming_uniform_(head.weight, mode="fan_out")
    nn.init.zeros_(head.bias)
    return head
