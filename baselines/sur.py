"""SUR: several frozen feature extractors, of which each task takes what helps it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid, normalize

from lite_bench.baselines.inner_loop import refuse_divergence, refuse_rates, refuse_steps
from lite_bench.harness.core import Encode, Support
from lite_bench.harness.errors import UsageError, WeightsError
from lite_bench.harness.repetition import repeated
from lite_bench.models.backbones import Backbone
from lite_bench.models.class_statistics import class_means
from lite_bench.models.pixels import Pixels
from lite_bench.models.precision import full_precision
from lite_bench.models.weights import load_weights

SMALLEST = 1e-16
"""Least product of two squared lengths, so that a feature of zeros has the cosine 0 with everything."""


@dataclass(frozen=True)
class SelectedPrototypes:
    """What a task is reduced to.

    Attributes:
        means: [C, K, D], the mean unit feature of each class by each extractor.
        scores: lambda [K]; extractor k has the weight sigmoid(lambda_k).
    """

    means: Float[Tensor, "C K D"]
    scores: Float[Tensor, " K"]


class SUR(nn.Module):
    """A weighted choice among frozen extractors, and cosine to class means (SUR).

    Nikita Dvornik, Cordelia Schmid, Julien Mairal: Selecting Relevant Features (SUR), ECCV 2020.

    From several frozen extractors, each trained on other data, a task learns one weight for each on its support set,
    and classifies by the cosine to class means of the weighted features.

    ``extractors`` lists weights files, of runs or of bare networks, for copies of the backbone, one each. Without it
    the backbone is the only extractor: it works, as a cosine classifier of nearest means, but there is nothing to
    select. The original has 8 extractors, ResNet-18 at 84 pixels, one for each training source of Meta-Dataset.

    With unit features f_k and s_k = sigmoid(lambda_k), a task's feature is z = [s_1 f_1, ..., s_K f_K], its prototypes
    p_c the class means of z, and its logits 10 cos(z, p_c). lambda starts at 0 and is fitted by Adadelta to the
    support set, which is compared with its own prototypes. (The LITE paper says that SUR concatenates predictions; it
    is features.)

    Shape letters: N support images, M queries, C way, K extractors, D features of one.
    """

    task_free_features: ClassVar[bool] = True
    meta_trained: ClassVar[bool] = False
    passes: str = "1F"

    def __init__(
        self,
        backbone: Backbone,
        *,
        extractors: str = "",
        steps: int = 40,
        inner_lr: float = 3000.0,
        logit_scale: float = 10.0,
    ) -> None:
        """Set up the learner.

        Args:
            backbone: the network of all extractors; its own weights are used only without ``extractors``.
            extractors: comma-separated weights files, one for each extractor.
            steps: Adadelta steps per task.
            inner_lr: their learning rate times the number of classes.
            logit_scale: factor on the cosines.

        Raises:
            UsageError: an entry of ``extractors`` is empty, or a number is out of range.
            WeightsError: a file is missing, unreadable or of another network.
        """
        super().__init__()
        refuse_steps(steps=steps)
        refuse_rates(inner_lr=inner_lr, logit_scale=logit_scale)
        files = weights_files(extractors, backbone.name)
        copies = [backbone, *(copy.deepcopy(backbone) for _ in files[1:])]
        for extractor, file in zip(copies, files, strict=False):  # no files leave the one backbone as it is
            load_weights(extractor.network, file, backbone.name)
        self.extractors = nn.ModuleList(copies)
        self.steps = steps
        self.inner_lr = inner_lr
        self.logit_scale = logit_scale
        self.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> SUR:
        """Switch mode; the extractors stay in evaluation mode."""
        super().train(mode)
        self.extractors.eval()
        return self

    def adapt(self, support: Support, encode: Encode) -> SelectedPrototypes:
        """Fit the weights of the extractors.

        Raises:
            DivergedError: the loss of a step was not finite.
        """
        features = encode(self._side_by_side, support.images).detach()
        with full_precision(features):
            units = self._units(features)
            means = class_means(units.flatten(1), support.labels, support.way).view(-1, *units.shape[1:])
            comparison = Comparison.of(units, means)
            scores = units.new_zeros(len(self.extractors), requires_grad=True)
            optimizer = torch.optim.Adadelta([scores], lr=self.inner_lr / support.way)
            losses = []
            for _ in repeated(self.steps):
                with torch.enable_grad():
                    loss = cross_entropy(self.logit_scale * comparison.cosines(scores), support.labels)
                    (scores.grad,) = torch.autograd.grad(loss, [scores])
                losses.append(loss.detach())
                optimizer.step()
        refuse_divergence(losses)
        return SelectedPrototypes(means, scores.detach())

    def classify(self, state: SelectedPrototypes, images: Pixels[Tensor, "M 3 S S"]) -> Float[Tensor, "M C"]:
        """Compare query images with the prototypes."""
        return self.logits(state, self.features(state, images))

    def features(self, state: SelectedPrototypes, images: Pixels[Tensor, "M 3 S S"]) -> Float[Tensor, "M KD"]:
        """Compute the features of query images by all extractors, side by side.

        They are normalised in `logits` and not here, so that the feature of a clip, the mean over its frames, has unit
        length as that of an image has.
        """
        del state
        return self._side_by_side(images)

    def logits(self, state: SelectedPrototypes, features: Float[Tensor, "M KD"]) -> Float[Tensor, "M C"]:
        """Compare query features with the prototypes."""
        with full_precision(features):
            return self.logit_scale * Comparison.of(self._units(features), state.means).cosines(state.scores)

    def _side_by_side(self, images: Tensor) -> Tensor:
        return torch.cat([extractor(images) for extractor in self.extractors], 1)

    def _units(self, features: Tensor) -> Tensor:
        """Cut features [n, K D] into those of each extractor, [n, K, D], of unit length."""
        return normalize(features.reshape(len(features), len(self.extractors), -1), dim=2)


@dataclass(frozen=True)
class Comparison:
    """All that cosines between weighted features and prototypes need of them, so that a step costs K per pair.

    Attributes:
        products: <f_mk, p_ck>, [M, C, K].
        lengths: ||f_mk||^2, [M, K].
        prototype_lengths: ||p_ck||^2, [C, K].
    """

    products: Float[Tensor, "M C K"]
    lengths: Float[Tensor, "M K"]
    prototype_lengths: Float[Tensor, "C K"]

    @classmethod
    def of(cls, features: Float[Tensor, "M K D"], means: Float[Tensor, "C K D"]) -> Comparison:
        """Compare features with unweighted class means."""
        products = torch.einsum("mkd,ckd->mck", features, means)
        return cls(products, features.square().sum(2), means.square().sum(2))

    def cosines(self, scores: Float[Tensor, " K"]) -> Float[Tensor, "M C"]:
        """Give cos([s_k f_mk]_k, [s_k p_ck]_k) for s = sigmoid(scores).

        Only the shares s_k^2 / sum s^2 matter, which a softmax gives whatever the size of the scores; s itself can
        vanish in float32.
        """
        shares = (2 * logsigmoid(scores)).softmax(0)
        squared = (self.lengths @ shares).unsqueeze(1) * (self.prototype_lengths @ shares)
        return self.products @ shares / squared.clamp_min(SMALLEST).sqrt()


def weights_files(text: str, backbone: str) -> list[Path]:
    """Split a comma-separated list of weights files.

    Args:
        text: the list, possibly empty.
        backbone: name of the network they are for, to say so.

    Raises:
        UsageError: an entry is empty.
        WeightsError: a file is not there.
    """
    if not text.strip():
        return []
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UsageError(f"-P extractors={text} has an empty entry; separate the weights files by single commas.")
    files = [Path(name).expanduser() for name in names]
    for file in files:
        if not file.is_file():
            raise WeightsError(
                f"-P extractors names {file}, which is not there; give weights files of {backbone} networks, separated "
                "by commas."
            )
    return files
