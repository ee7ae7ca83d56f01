"""The two-halves step: any state, any cut of the queries, the same gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lite_bench.harness.core import Episode, QueryBatch, Support, Task
from lite_bench.harness.errors import PluginError, RunError
from lite_bench.harness.registry import ESTIMATORS
from lite_bench.harness.step import TaskOutcome, accumulate_task_gradient, map_tensors, query_batches, split_halves

WAY, N, M, SIDE = 3, 9, 11, 4
UNBIASED = ("lite", "lite-stratified", "lite-importance", "exact", "full", "lite-redraw")


@dataclass(frozen=True)
class State:
    tensors: dict[str, Any]
    size: int = 3
    name: str | None = None


def test_every_tensor_of_a_state_is_mapped_and_its_structure_kept() -> None:
    one = torch.ones(2)
    state = State({"a": one, "b": [one, (one, 2.5)], "c": State({"d": one})}, name="n")
    doubled = map_tensors(state, lambda tensor: 2 * tensor)
    assert isinstance(doubled, State)
    found: list[Tensor] = []
    map_tensors(doubled, lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
    assert len(found) == 4
    assert all(torch.equal(tensor, 2 * one) for tensor in found)
    assert (doubled.size, doubled.name, doubled.tensors["b"][1][1]) == (3, "n", 2.5)
    assert isinstance(doubled.tensors["b"][1], tuple)


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


def test_named_tuples_are_states_too() -> None:
    mapped = map_tensors(Pair(torch.ones(1), torch.zeros(1)), lambda tensor: tensor + 1)
    assert isinstance(mapped, Pair)
    assert (float(mapped.first), float(mapped.second)) == (2.0, 1.0)


@pytest.mark.parametrize("state", [nn.Linear(1, 1), {"a": {1, 2}}, State({"f": print}), State])
def test_a_state_of_something_else_is_refused(state: object) -> None:
    with pytest.raises(PluginError, match="must return a dataclass of tensors"):
        map_tensors(state, lambda tensor: tensor)


def test_only_differentiable_tensors_become_leaves() -> None:
    weight = torch.ones(2, requires_grad=True)
    state, pairs = split_halves([weight * 2, torch.arange(3)])
    assert len(pairs) == 1
    assert state[0].is_leaf
    assert state[0].requires_grad
    assert not state[1].requires_grad


def batches_of(*sizes: int, groups: bool = False) -> list[QueryBatch]:
    ends = torch.tensor(sizes).cumsum(0).tolist()
    numbers = [torch.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    return [QueryBatch(n.view(-1, 1, 1, 1).expand(-1, 3, 2, 2), n % WAY, n // 2 if groups else None) for n in numbers]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("groups", [False, True])
def test_queries_are_cut_without_loss_or_change_of_order(size: int, groups: bool) -> None:
    cut = list(query_batches(batches_of(5, 1, 4, groups=groups), size))
    assert max(len(batch.labels) for batch in cut) <= size
    assert torch.cat([batch.images[:, 0, 0, 0] for batch in cut]).tolist() == list(range(10))
    assert torch.cat([batch.labels for batch in cut]).tolist() == [n % WAY for n in range(10)]
    for batch in cut:
        if groups:
            assert batch.groups is not None
            assert torch.equal(batch.groups, batch.images[:, 0, 0, 0] // 2)
        else:
            assert batch.groups is None


@dataclass(frozen=True)
class Means:
    means: Tensor


class Toy(nn.Module):
    """A nearest-mean learner with a penalty that counts its calls."""

    def __init__(self, weight: float = 0.3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.network = nn.Parameter(torch.randn(3 * SIDE * SIDE, 5, generator=generator, dtype=torch.float64))
        self.support_only = nn.Parameter(torch.randn(5, generator=generator, dtype=torch.float64))
        self.weight = weight

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1).double() / 255 @ self.network / 7

    def penalty(self) -> Tensor:
        return self.weight * self.network.square().sum()

    def adapt(self, support: Support, encode: Any) -> Means:
        features = encode(lambda images: self.features(images) * self.support_only.exp(), support.images)
        return Means(torch.stack([features[support.labels == c].mean(0) for c in range(support.way)]))

    def classify(self, state: Means, images: Tensor) -> Tensor:
        return -torch.cdist(self.features(images), state.means).square()


def episode_of(*sizes: int) -> Episode:
    generator = torch.Generator().manual_seed(1)

    def images(n: int) -> Tensor:
        return torch.randint(0, 256, (n, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)

    support = Support(images(N), torch.arange(N) % WAY, WAY)
    query, labels = images(M), torch.arange(M) % WAY
    parts = zip(torch.split(query, list(sizes)), torch.split(labels, list(sizes)), strict=True)
    return Episode(Task("toy@1", "toy", "train", 0), support, [QueryBatch(i, t) for i, t in parts], M)


def gradient_of(
    name: str, sizes: tuple[int, ...], batch_size: int, h: int = N
) -> tuple[dict[str, Tensor], TaskOutcome]:
    learner = Toy()
    generator = torch.Generator().manual_seed(2)
    estimator = ESTIMATORS.load(name)(h, batch_size)
    outcome = accumulate_task_gradient(learner, episode_of(*sizes), estimator, batch_size, generator)
    return {key: p.grad for key, p in learner.named_parameters() if p.grad is not None}, outcome


def plain() -> tuple[dict[str, Tensor], float]:
    """One graph, one loss: the mean over all queries plus the penalty once."""
    learner, episode = Toy(), episode_of(M)
    (batch,) = episode.query
    state = learner.adapt(episode.support, lambda network, images: network(images))
    loss = cross_entropy(learner.classify(state, batch.images), batch.labels) + learner.penalty()
    loss.backward()  # type: ignore[no-untyped-call]
    return {key: p.grad for key, p in learner.named_parameters() if p.grad is not None}, float(loss.detach())


@pytest.mark.parametrize("sizes", [(11,), (5, 1, 5), (10, 1)])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("name", UNBIASED)
def test_the_loss_is_the_mean_over_all_queries_and_the_penalty_counts_once(
    name: str, batch_size: int, sizes: tuple[int, ...]
) -> None:
    """With H = N the unbiased estimators have no variance, so each must give the plain gradient."""
    found, outcome = gradient_of(name, sizes, batch_size)
    expected, loss = plain()
    assert found.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-10, atol=1e-12)
    assert outcome.loss == pytest.approx(loss, rel=1e-10)
    assert outcome.n_query == M


@pytest.mark.parametrize("name", ["lite", "lite-stratified", "lite-importance", "exact", "full", "subsample"])
def test_the_batch_size_never_changes_the_gradient(name: str) -> None:
    one, first = gradient_of(name, (11,), 100, h=4)
    other, second = gradient_of(name, (4, 7), 2, h=4)
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=1e-10, atol=1e-12)
    assert first.loss == pytest.approx(second.loss, rel=1e-10)
    assert first.correct == second.correct


def test_the_released_codes_sum_over_query_batches() -> None:
    whole, _ = gradient_of("lite-code", (11,), 100)
    cut, _ = gradient_of("lite-code", (11,), 1)
    assert float(cut["network"].norm()) > 5 * float(whole["network"].norm())


def test_gradients_add_up_over_tasks() -> None:
    learner = Toy()
    for _ in range(2):
        estimator = ESTIMATORS.load("full")(0, 100)
        accumulate_task_gradient(learner, episode_of(11), estimator, 100, torch.Generator())
    expected, _ = plain()
    assert learner.network.grad is not None
    torch.testing.assert_close(learner.network.grad, 2 * expected["network"])


def test_a_loss_without_any_parameter_is_refused() -> None:
    class Cut(Toy):
        penalty = None  # type: ignore[assignment]

        def classify(self, state: Means, images: Tensor) -> Tensor:
            with torch.no_grad():
                features = self.features(images)
            return -torch.cdist(features, state.means).square()

    for name in ("lite", "lite-stratified", "lite-importance"):
        estimator = ESTIMATORS.load(name)(0, 100)
        with pytest.raises(RunError, match=f"depends on no parameter with --gradient {name} and --lite-h 0"):
            accumulate_task_gradient(Cut(), episode_of(11), estimator, 100, torch.Generator())


@pytest.mark.parametrize("name", ["lite", "lite-importance"])
def test_a_frozen_network_is_refused_whatever_h(name: str) -> None:
    class Frozen(Toy):
        penalty = None  # type: ignore[assignment]  # none at all

        def features(self, images: Tensor) -> Tensor:
            return images.flatten(1).double() / 255 @ self.network.detach() / 7

        def adapt(self, support: Support, encode: Any) -> Means:
            features = encode(self.features, support.images)
            return Means(torch.stack([features[support.labels == c].mean(0) for c in range(support.way)]))

    with pytest.raises(RunError, match="depends on no parameter"):
        accumulate_task_gradient(Frozen(), episode_of(11), ESTIMATORS.load(name)(3, 2), 100, torch.Generator())
