"""Statistics of gradient estimates against estimators whose bias and noise are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lite_bench.harness.measurement.deviations import (
    Deviation,
    Tally,
    TaskTally,
    bias_error,
    cosine,
    direction,
    sign_flip_p_value,
    squared_bias,
)

P, DRAWS = 200, 160


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def truth(seed: int = 0) -> Tensor:
    return torch.randn(P, dtype=torch.float64, generator=generator(seed))


def studied(offset: Tensor, noise: float, *, tasks: int = 1, seed: int = 1, draws: int = DRAWS) -> Deviation:
    """Draws of g + offset + noise N(0, 1)."""
    source, tally = generator(seed), Tally()
    for number in range(tasks):
        task = TaskTally(truth(number), min(draws, 16))
        for _ in range(draws):
            task.add(truth(number) + offset + noise * torch.randn(P, dtype=torch.float64, generator=source))
        tally.add(task)
    return tally.result()


def test_pure_noise_is_unbiased() -> None:
    found = studied(torch.zeros(P), 3.0)
    size = float(truth().norm())
    assert found.rmse == pytest.approx(3.0 * math.sqrt(P) / size, rel=0.05)
    assert found.rmse_per_element == pytest.approx(3.0, rel=0.05)
    assert found.bias < 0.15  # |mean - g| / |g| would be about 3 / sqrt(160) = 0.24
    assert found.p_value is not None
    assert found.p_value > 0.01
    assert found.gain == pytest.approx(1, abs=0.1)


def test_a_bias_below_the_noise_is_found_and_measured() -> None:
    offset = 0.3 * truth(5)
    found = studied(offset, 1.0)
    expected = float(offset.norm() / truth().norm())
    assert found.bias_error is not None
    assert abs(found.bias - expected) < 4 * found.bias_error
    assert found.bias_error < 0.1
    assert found.p_value is not None
    assert found.p_value < 0.001


def test_p_values_of_unbiased_estimators_are_uniform() -> None:
    """One in ten below 0.1, one in two below 0.5: 300 studies, four standard errors."""
    values = [studied(torch.zeros(P), 1.0, seed=seed, draws=16).p_value or 0.0 for seed in range(300)]
    for level in (0.1, 0.5):
        share = sum(value <= level for value in values) / len(values)
        assert abs(share - level) < 4 * math.sqrt(level * (1 - level) / len(values))


def test_the_corrected_bias_averages_to_the_true_one() -> None:
    """Unlike |mean - g|^2, which the noise inflates: the mean over 200 studies of the corrected square is right."""
    offset, squares, naive = 0.1 * truth(5), [], []
    for seed in range(200):
        source = generator(seed)
        blocks = offset + 0.5 * torch.randn(8, P, dtype=torch.float64, generator=source)
        squares.append(squared_bias(blocks @ blocks.T))
        naive.append(float(blocks.mean(0).square().sum()))
    true = float(offset.square().sum())
    error = torch.tensor(squares).std().item() / math.sqrt(200)
    assert abs(sum(squares) / 200 - true) < 4 * error
    assert sum(naive) / 200 > true + 10 * error


def test_a_factor_changes_gain_and_not_direction() -> None:
    found = studied(0.5 * truth(), 0.01)
    assert found.gain == pytest.approx(1.5, abs=0.01)
    assert found.bias == pytest.approx(0.5, abs=0.01)
    assert found.direction == pytest.approx(1, abs=1e-3)
    assert found.cosine == pytest.approx(1, abs=1e-3)


def test_direction_is_the_angle_of_the_mean() -> None:
    offset = truth(5)
    found = studied(offset, 0.01)
    assert found.direction == pytest.approx(cosine(truth() + offset, truth()), abs=1e-2)
    assert direction(0.0, 1.0) == 0.0


def test_a_bias_does_not_cancel_between_tasks() -> None:
    tally, offset = Tally(), truth(5)
    for number, sign in enumerate((1, -1)):
        task = TaskTally(truth(number), 1)
        task.add(truth(number) + sign * offset)
        tally.add(task)
    found = tally.result()
    together = math.sqrt(sum(float(truth(number).square().sum()) for number in range(2)))
    assert found.bias == pytest.approx(math.sqrt(2) * float(offset.norm()) / together)


def test_one_draw_of_the_truth_is_exact() -> None:
    found = studied(torch.zeros(P), 0.0, draws=1)
    assert (found.bias, found.bias_error, found.p_value, found.rmse) == (0.0, None, None, 0.0)
    assert found.cosine == pytest.approx(1)


def test_a_part_without_any_gradient() -> None:
    task = TaskTally(torch.zeros(3, dtype=torch.float64), 1)
    task.add(torch.zeros(3))
    tally = Tally()
    tally.add(task)
    found = tally.result()
    assert (found.bias, found.rmse, found.cosine) == (0.0, 0.0, 0.0)
    task.add(torch.ones(3))
    other = Tally()
    other.add(task)
    assert other.result().rmse == math.inf


def test_few_blocks_tell_no_chance() -> None:
    gram = torch.eye(7, dtype=torch.float64)
    assert sign_flip_p_value(gram) is None
    assert bias_error(gram[:2][:, :2], 0.0) == 0.0
    assert sign_flip_p_value(torch.eye(8, dtype=torch.float64)) == 1.0
