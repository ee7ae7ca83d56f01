"""MD-Transfer: all weights of a pretrained network fine-tuned to the task.

Shape letters: N support items, M queries, C way, D features, T frames of a clip, S image side.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from lite_bench.baselines.adapted_network import AdaptedNetwork, NetworkAdapter
from lite_bench.baselines.inner_loop import TaskCopy, refuse_rates, refuse_steps
from lite_bench.harness.clips import IMAGE_DIMENSIONS
from lite_bench.harness.core import Encode, Support, TaskSizes, stable_key
from lite_bench.harness.errors import UsageError
from lite_bench.models.backbones import Backbone
from lite_bench.models.class_statistics import class_means
from lite_bench.models.normalisation import fix_batch_statistics
from lite_bench.models.precision import full_precision

DEFAULT_SCALE = 10.0


class MDTransfer(NetworkAdapter):
    """All weights fine-tuned with a cosine classifier for 200 steps (MD-Transfer of VTAB+MD).

    Vincent Dumoulin et al.: Comparing Transfer and Meta Learning Approaches on a Unified Few-Shot Classification
    Benchmark, NeurIPS 2021 Datasets and Benchmarks.

    Every task starts from the same pretrained network, which is never meta-trained, and a new head; a step is one of
    Adam on the mean cross-entropy of the whole support set, accumulated over chunks. BatchNorm uses fixed statistics.

    What is published of this system is the sentence above. Optimizer and rate are those of its ancestor, the
    fine-tuning baseline of Meta-Dataset (Triantafillou et al., ICLR 2020), whose head is ``head=weight_norm``; the
    scale of the cosine and the start of the head are choices made here.

    The rows of a head start at random, in directions that the images of their class decide. So a class has the same
    start whatever its number, the order of its images and the classes beside it, and the steps see the same sums. The
    chunk changes no more than their rounding; on a network from scratch 200 steps can still make much of that.
    """

    meta_trained: ClassVar[bool] = False
    passes: str = "200FB"

    def __init__(
        self,
        backbone: Backbone,
        *,
        steps: int = 200,
        inner_lr: float = 0.01,
        optimizer: Literal["adam", "sgd"] = "adam",
        head: Literal["cosine", "weight_norm", "linear"] = "cosine",
        logit_scale: float | None = None,
        learn_scale: bool = False,
        start: Literal["random", "means"] = "random",
    ) -> None:
        """Set up the learner.

        Args:
            backbone: pretrained network, the start of every task.
            steps: gradient steps per task.
            inner_lr: their learning rate, for all layers.
            optimizer: of all layers.
            head: ``cosine``, the cosine of feature and class row times a scale; ``weight_norm``, a linear layer whose
                rows are directions with lengths of their own; or ``linear``.
            logit_scale: factor on the cosine; 10 unless given.
            learn_scale: fit that factor too.
            start: rows of the head start in ``random`` directions, or in those of the class ``means`` of the features.

        Raises:
            UsageError: a number is out of range, or a scale is asked for that the head does not have.
        """
        super().__init__()
        refuse_steps(steps=steps)
        refuse_rates(inner_lr=inner_lr)
        if head != "cosine" and (learn_scale or logit_scale is not None):
            option = "learn_scale=true" if learn_scale else f"logit_scale={logit_scale:g}"
            raise UsageError(f"-P {option} is for a cosine, but -P head={head} has none; leave one of them out.")
        self.backbone = backbone.requires_grad_(False)
        self.steps = steps
        self.inner_lr = inner_lr
        self.optimizer = optimizer
        self.head = head
        self.logit_scale = DEFAULT_SCALE if logit_scale is None else logit_scale
        self.learn_scale = learn_scale
        self.start = start
        self.passes = "+".join(["1F"] * (start == "means") + [f"{steps}FB"])
        self.train(self.training)

    def train(self, mode: bool = True) -> MDTransfer:
        """Switch mode; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        fix_batch_statistics(self.backbone)
        return self

    def published_macs(self, sizes: TaskSizes, network_macs: Callable[[nn.Module], int]) -> int:
        """Count as ORBIT's Table 1 counts its FineTuner: every step as two forward passes, the head not at all."""
        forward, pooling = sizes.images * network_macs(self.backbone), sizes.images * self.backbone.features
        first = forward + pooling if self.start == "means" else 0
        return first + self.steps * (2 * forward + pooling)

    def adapt(self, support: Support, encode: Encode) -> AdaptedNetwork:
        """Fine-tune a copy of the network with a new head.

        The support set is put in an order that only its content decides. 200 steps of Adam can make much of the last
        bit of a sum, so a result that is to be independent of the order needs the same bits.

        Raises:
            DivergedError: the loss of a step was not finite.
        """
        support, places, keys = put_in_order(support)
        rows = self._mean_rows(support, encode) if self.start == "means" else self._random_rows(keys)
        own = TaskCopy.of(self.backbone, self._new_head(rows), self._head_logits)
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.SGD
        optimizer = kind(own.groups(self.inner_lr, self.inner_lr))
        own.descend(support, encode.chunk, optimizer, self.steps)
        with full_precision(rows):
            weight, bias = self._weight_and_bias([h.detach() for h in own.head])
        return AdaptedNetwork({name: w.detach() for name, w in own.weights.items()}, weight[places], bias[places])

    def _random_rows(self, keys: Sequence[int]) -> Float[Tensor, "C D"]:
        """Draw a row for each class from a generator of its own; the mean square of its length is 1."""
        like, n = self.backbone.mean, self.backbone.features
        generators = [torch.Generator().manual_seed(key) for key in keys]
        rows = torch.stack([torch.randn(n, generator=each, dtype=torch.float64) for each in generators])
        return (rows / math.sqrt(n)).to(like.device, like.dtype)

    def _mean_rows(self, support: Support, encode: Encode) -> Float[Tensor, "C D"]:
        with torch.no_grad():
            features = encode(self.backbone, support.images)
        with full_precision(features):
            return normalize(class_means(features, support.labels, support.way), dim=1)

    def _new_head(self, rows: Float[Tensor, "C D"]) -> list[Tensor]:
        """Give the tensors of a head that are fitted."""
        if self.head == "cosine":
            return [rows, rows.new_tensor(self.logit_scale)] if self.learn_scale else [rows]
        lengths = [rows.norm(dim=1)] if self.head == "weight_norm" else []
        return [rows, *lengths, rows.new_zeros(len(rows))]

    def _weight_and_bias(self, head: Sequence[Tensor]) -> tuple[Float[Tensor, "C D"], Float[Tensor, " C"]]:
        """Give the linear layer that a head is, on unit features if it is a cosine."""
        if self.head == "cosine":
            scale = head[1] if self.learn_scale else self.logit_scale
            return scale * normalize(head[0], dim=1), head[0].new_zeros(len(head[0]))
        if self.head == "weight_norm":
            return head[1].unsqueeze(1) * normalize(head[0], dim=1), head[2]
        return head[0], head[1]

    def _head_logits(self, features: Float[Tensor, "n D"], head: Sequence[Tensor]) -> Float[Tensor, "n C"]:
        return self._weigh(features, *self._weight_and_bias(head))

    def _weigh(
        self, features: Float[Tensor, "n D"], weight: Float[Tensor, "C D"], bias: Float[Tensor, " C"]
    ) -> Float[Tensor, "n C"]:
        return linear(normalize(features, dim=1) if self.head == "cosine" else features, weight, bias)

    def logits(self, state: AdaptedNetwork, features: Float[Tensor, "M D"]) -> Float[Tensor, "M C"]:
        """Apply the task's own head to query features."""
        with full_precision(features):
            return self._weigh(features, state.weight, state.bias)


def put_in_order(support: Support) -> tuple[Support, list[int], list[int]]:
    """Sort a support set, and number its classes anew, by the content of its images alone.

    Args:
        support: the support set, of images or clips.

    Returns:
        the sorted set, the new number of every class [C], and the keys of the classes in the new order [C].
    """
    names, labels = [name_of(item) for item in support.images.cpu()], support.labels.tolist()
    members: list[list[str]] = [[] for _ in range(support.way)]
    for name, label in zip(names, labels, strict=True):
        members[label].append(name)
    keys = [stable_key(*sorted(own)) for own in members]
    classes = sorted(range(support.way), key=keys.__getitem__)
    places = sorted(range(support.way), key=classes.__getitem__)
    order = sorted(range(len(names)), key=lambda i: (places[labels[i]], names[i]))
    numbers = support.labels.new_tensor([places[labels[i]] for i in order])
    return replace(support, images=support.images[order], labels=numbers), places, [keys[c] for c in classes]


def name_of(item: Tensor) -> str:
    """Name an image or clip by the bytes of its frames, in any order and each counted once.

    A clip that repeats an image then has the image's name, as it has the image's features.

    Args:
        item: [3, S, S] or [T, 3, S, S], on the CPU.
    """
    frames = item.unsqueeze(0) if item.ndim < IMAGE_DIMENSIONS else item
    digests = {hashlib.sha256(frame.contiguous().numpy().tobytes()).hexdigest() for frame in frames}
    return "".join(sorted(digests))
