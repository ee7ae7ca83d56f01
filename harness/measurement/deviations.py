"""How far random gradient estimates are from the true gradient, without keeping them all.

Notation: D draws ĝ_d of a gradient g, in B blocks of equal size with means m_b; deviations δ_b = m_b - g. The squared
bias |E ĝ - g|^2 is estimated by the average of <δ_a, δ_b> over pairs of different blocks: unlike |mean - g|^2 it does
not grow with the noise of the draws, so it is 0 in the mean for an unbiased estimator (Chen and Qin, A Two-Sample Test
for High-Dimensional Data, Annals of Statistics 2010). Its chance under "no bias" comes from flipping the signs of the
blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

BLOCKS = 16
FLIPS = 20_000
ROUNDING = 1e-5
"""Relative distances below this are rounding (in float32), which no test should take for a bias."""


@dataclass(frozen=True)
class Deviation:
    """Estimates beside the true gradient; all but ``cosine`` and ``p_value`` relative to its norm.

    Attributes:
        bias: |E ĝ - g| / |g|, corrected for the noise of the draws; 0 where the correction exceeds it.
        bias_error: Monte-Carlo standard error of ``bias``; None for a single draw.
        p_value: chance of so large a bias under "no bias"; None with too few blocks to tell, or where all is rounding.
        gain: <E ĝ, g> / |g|^2: 1 for an unbiased estimator, below 1 where the gradient is shrunk.
        direction: cosine of the angle between E ĝ and g: 1 for an unbiased estimator, and for one off by a factor.
        rmse: sqrt(E |ĝ - g|^2) / |g|.
        rmse_per_element: sqrt(E |ĝ - g|^2 / number of elements), in units of the gradient.
        cosine: mean cosine of the angle between one draw and g.
    """

    bias: float
    bias_error: float | None
    p_value: float | None
    gain: float
    direction: float
    rmse: float
    rmse_per_element: float
    cosine: float


@dataclass
class Tally:
    """Collects the draws of one estimator for one part of the parameters, over several tasks.

    Tasks are treated as parts of one long gradient, so that a bias cannot cancel between them.
    """

    gram: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.float64))
    squared_error: float = 0.0
    squared_norm: float = 0.0
    elements: int = 0
    cosines: list[float] = field(default_factory=list)
    products: list[float] = field(default_factory=list)

    def add(self, task: TaskTally) -> None:
        """Take in the draws of one task."""
        deviations = torch.stack([block.double() - task.reference for block in task.block_means()])
        gram = (deviations @ deviations.T).cpu()
        self.gram = gram if not len(self.gram) else self.gram + gram
        self.squared_error += task.squared_error / task.draws
        self.squared_norm += float(task.reference @ task.reference)
        self.elements += len(task.reference)
        self.cosines.append(sum(task.cosines) / task.draws)
        self.products.append(float((deviations.mean(0) + task.reference) @ task.reference))

    def result(self) -> Deviation:
        """Compare the draws with the true gradient."""
        norm = math.sqrt(self.squared_norm)
        squared = squared_bias(self.gram)
        bias = math.sqrt(max(0.0, squared))
        error = None if len(self.gram) < 2 else relative(bias_error(self.gram, bias), norm)
        rmse = relative(math.sqrt(self.squared_error), norm)
        gain = relative(sum(self.products), self.squared_norm)
        return Deviation(
            bias=relative(bias, norm),
            bias_error=error,
            p_value=sign_flip_p_value(self.gram) if rmse > ROUNDING else None,
            gain=gain,
            direction=direction(gain, relative(bias, norm)),
            rmse=rmse,
            rmse_per_element=math.sqrt(self.squared_error / max(1, self.elements)),
            cosine=sum(self.cosines) / len(self.cosines),
        )


@dataclass
class TaskTally:
    """Collects the draws of one estimator on one task.

    Attributes:
        reference: the true gradient, float64 [P].
        blocks: how many blocks the draws are gathered in.
    """

    reference: Tensor
    blocks: int
    sums: list[Tensor] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    squared_error: float = 0.0
    draws: int = 0
    cosines: list[float] = field(default_factory=list)

    def add(self, gradient: Tensor) -> None:
        """Take in one draw, [P]."""
        difference = gradient.double() - self.reference
        self.squared_error += float(difference @ difference)
        self.cosines.append(cosine(gradient.double(), self.reference))
        block = self.draws % self.blocks
        if block == len(self.sums):
            self.sums.append(gradient.clone())
            self.counts.append(1)
        else:
            self.sums[block] += gradient
            self.counts[block] += 1
        self.draws += 1

    def block_means(self) -> list[Tensor]:
        """Average the draws of each block."""
        return [total.double() / count for total, count in zip(self.sums, self.counts, strict=True)]


def relative(value: float, norm: float) -> float:
    """Divide by the size of the true gradient; where that is 0, 0 stays 0 and anything else is beyond measure."""
    return value / norm if norm else (math.inf if value else 0.0)


def direction(gain: float, bias: float) -> float:
    """Give <E ĝ, g> / (|E ĝ| |g|), from |E ĝ|^2 / |g|^2 = 2 gain - 1 + bias^2."""
    squared = 2 * gain - 1 + bias**2
    return max(-1.0, min(1.0, gain / math.sqrt(squared))) if squared > 0 else 0.0


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two vectors; 0 if one of them is 0."""
    size = float(a.norm() * b.norm())
    return float(a @ b) / size if size else 0.0


def squared_bias(gram: Tensor) -> float:
    """Average <δ_a, δ_b> over pairs of different blocks; for a single block, its squared norm.

    Args:
        gram: the products <δ_a, δ_b>, [B, B].
    """
    n = len(gram)
    if n == 1:
        return float(gram[0, 0])
    return float((gram.sum() - gram.trace()) / (n * (n - 1)))


def bias_error(gram: Tensor, bias: float) -> float:
    """Give the standard error of the bias.

    That of the squared bias is the larger of two estimates: by leaving out one block at a time (the jackknife), and
    that of blocks without any bias, whose products have the mean square that is seen.
    """
    n = len(gram)
    others = [[b for b in range(n) if b != a] for a in range(n)]
    values = torch.tensor([squared_bias(gram[kept][:, kept]) for kept in others], dtype=torch.float64)
    jackknife = math.sqrt((n - 1) / n * float((values - values.mean()).square().sum())) if n > 2 else 0.0
    products = gram - torch.diag(gram.diagonal())
    unbiased = math.sqrt(2 * float(products.square().sum())) / (n * (n - 1))
    spread = max(jackknife, unbiased)
    return min(math.sqrt(spread), spread / (2 * bias)) if bias else math.sqrt(spread)


def sign_flip_p_value(gram: Tensor) -> float | None:
    """Give the chance that blocks with random signs show at least this bias; None with fewer than 8 blocks."""
    n = len(gram)
    if n < 8:
        return None
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (FLIPS, n), generator=generator).double() * 2 - 1
    flipped = torch.einsum("fa,ab,fb->f", signs, gram, signs)
    return (1 + int((flipped >= float(gram.sum())).sum())) / (1 + FLIPS)
