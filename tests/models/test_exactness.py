"""The gradient claims, by exhaustive enumeration in float64."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lite_bench.harness.core import Episode
from lite_bench.models import encoding
from lite_bench.models.backbones import timm_backbone
from lite_bench.models.cnaps import CNAPs
from lite_bench.models.draws import Rows, inclusion_probabilities
from lite_bench.models.estimators import (
    Exact,
    Full,
    Lite,
    LiteCode,
    LiteImportance,
    LitePaper,
    LiteRedraw,
    LiteStratified,
    Subsample,
)
from lite_bench.models.protonets import ProtoNets
from lite_bench.models.simple_cnaps import SimpleCNAPs
from tests.models.toys import Factory, Scripted, build, clip_episode, gradient, subsets, tiny_episode

LEARNERS = [ProtoNets, CNAPs, SimpleCNAPs]
N, H = 5, 2


def passes_of(factory: Factory) -> int:
    return 1 if factory is ProtoNets else 2


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def task_of(factory: Factory, way: int = 2, frames: int = 1) -> tuple[Any, Episode]:
    return build(factory), clip_episode(N, frames, way)


@functools.cache
def independent_draws(factory: Factory, way: int, frames: int = 1) -> dict[tuple[tuple[int, ...], ...], Tensor]:
    """Compute the gradient of every combination of one subset per pass, with the factor N/H in each."""
    learner, episode = task_of(factory, way, frames)
    draws = itertools.product(subsets(N, H), repeat=passes_of(factory))
    return {rows: gradient(learner, episode, Scripted(rows, N)) for rows in draws}


@functools.cache
def shared_draws(factory: Factory, factor: float) -> dict[tuple[int, ...], Tensor]:
    """Compute the gradient of every subset used in all passes."""
    learner, episode = task_of(factory)
    return {rows: gradient(learner, episode, Scripted((rows,), N, factor)) for rows in subsets(N, H)}


class Weighted(Scripted):
    """As `Scripted`, with a factor of its own for every row."""

    def __init__(self, rows: tuple[tuple[int, ...], ...], factors: list[float]) -> None:
        super().__init__(rows, 1, 1.0)
        self.factors = factors

    def rows_of(self, indices: Tensor) -> Rows:
        return Rows(indices, torch.tensor(self.factors, dtype=torch.float64))


def subsets_of(members: range, h: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations(members, h))


def uneven_episode(counts: tuple[int, int]) -> Episode:
    """A task whose first class has ``counts[0]`` support images, the second ``counts[1]``."""
    episode = tiny_episode(n=sum(counts))
    labels = torch.tensor([0] * counts[0] + [1] * counts[1])
    return replace(episode, support=replace(episode.support, labels=labels))


def mean(gradients: dict[Any, Tensor]) -> Tensor:
    return torch.stack(list(gradients.values())).mean(0)


@pytest.mark.parametrize("factory", LEARNERS)
@pytest.mark.parametrize(("way", "frames"), [(2, 1), (N, 1), (2, 2)])
def test_the_mean_of_lite_over_all_draws_is_the_full_gradient(factory: Factory, way: int, frames: int) -> None:
    """H counts clips, where there are any: all frames of a drawn clip carry a gradient, or none."""
    full = gradient(*task_of(factory, way, frames), Full(0, 100))
    assert full.norm() > 1e-4
    assert len(independent_draws(factory, way, frames)) == 10 ** passes_of(factory)
    assert relative(mean(independent_draws(factory, way, frames)), full) < 1e-10


@pytest.mark.parametrize("factory", [CNAPs, SimpleCNAPs])
@pytest.mark.parametrize("factor", [1.0, N / H])
def test_a_draw_shared_by_both_passes_is_biased_whatever_its_scale(factory: Factory, factor: float) -> None:
    full = gradient(*task_of(factory), Full(0, 100))
    assert relative(mean(shared_draws(factory, factor)), full) > 1e-2


@pytest.mark.parametrize("factory", LEARNERS)
def test_the_published_variants_are_biased(factory: Factory) -> None:
    """Their mean over all draws: no factor (released code), and N/H on the whole update (Algorithm 1)."""
    full = gradient(*task_of(factory), Full(0, 100))
    code = mean(shared_draws(factory, 1.0))
    paper = code * N / H
    print(f"{factory.__name__}: lite-code off by {relative(code, full):.2f}, lite-paper by {relative(paper, full):.2f}")
    assert relative(code, full) > 0.05
    assert relative(paper, full) > 0.05


@pytest.mark.parametrize("factory", LEARNERS)
@pytest.mark.parametrize("estimator", [LiteCode, LitePaper])
def test_the_named_published_variants_average_to_their_enumeration(factory: Factory, estimator: type[LiteCode]) -> None:
    """The registered estimators draw what the enumeration above enumerates: each of their draws is a member of it."""
    scale = N / H if estimator is LitePaper else 1.0
    for seed in range(4):
        drawn = gradient(*task_of(factory), estimator(H, 100), seed=seed)
        assert min(relative(drawn, member * scale) for member in shared_draws(factory, 1.0).values()) < 1e-12


@pytest.mark.parametrize("factory", LEARNERS)
@pytest.mark.parametrize("estimator", [Lite, LiteRedraw])
@pytest.mark.parametrize("frames", [1, 2])
def test_registered_lite_draws_independently_in_every_pass(
    factory: Factory, estimator: type[Lite], frames: int
) -> None:
    """With one query batch `lite` and `lite-redraw` are the same; each draw is a member of the unbiased enumeration."""
    seen = set()
    for seed in range(8):
        drawn = gradient(*task_of(factory, frames=frames), estimator(H, 100), seed=seed)
        rows, distance = min(
            ((rows, relative(drawn, member)) for rows, member in independent_draws(factory, 2, frames).items()),
            key=lambda found: found[1],
        )
        assert distance < 1e-12
        seen.add(rows)
    assert len(seen) > 2
    if passes_of(factory) == 2:
        assert any(first != second for first, second in seen)


@pytest.mark.parametrize("factory", LEARNERS)
def test_the_mean_of_lite_redraw_over_all_draws_of_two_query_batches_is_the_full_gradient(factory: Factory) -> None:
    n, h, batches = 3, 1, 2
    learner, episode = build(factory), tiny_episode(n=n, m=3)
    full = gradient(learner, episode, Full(0, 100))
    draws = itertools.product(subsets(n, h), repeat=batches * passes_of(factory))
    members = {rows: gradient(learner, episode, Scripted(rows, n, redraws=True), batch_size=2) for rows in draws}
    assert relative(mean(members), full) < 1e-10
    registered = gradient(learner, episode, LiteRedraw(h, 100), batch_size=2)
    assert min(relative(registered, member) for member in members.values()) < 1e-12


@pytest.mark.parametrize("factory", LEARNERS)
@pytest.mark.parametrize("counts", [(3, 2), (1, 4)])
def test_the_mean_of_stratified_draws_is_the_full_gradient(factory: Factory, counts: tuple[int, int]) -> None:
    """Every choice of 1 of the smaller class and 2 of the larger, for every pass, each with its class's factor."""
    learner, episode = build(factory), uneven_episode(counts)
    full = gradient(learner, episode, Full(0, 100))
    shares = [1, 2] if counts[0] < counts[1] else [2, 1]
    classes = [range(counts[0]), range(counts[0], sum(counts))]
    choices = [subsets_of(members, share) for members, share in zip(classes, shares, strict=True)]
    one_pass = [(*a, *b) for a, b in itertools.product(*choices)]
    factors = [k / share for k, share in zip(counts, shares, strict=True) for _ in range(share)]
    draws = list(itertools.product(one_pass, repeat=passes_of(factory)))
    members = {rows: gradient(learner, episode, Weighted(rows, factors)) for rows in draws}
    assert relative(mean(members), full) < 1e-10
    registered = gradient(learner, episode, LiteStratified(3, 100))
    assert min(relative(registered, member) for member in members.values()) < 1e-10


@pytest.mark.parametrize("factory", LEARNERS)
@pytest.mark.parametrize(("chunk", "frames"), [(1, 1), (100, 1), (2, 2)])
def test_the_mean_of_importance_draws_is_the_full_gradient(
    factory: Factory, chunk: int, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enumerate one row per pass, each sequence with its probability, which later passes decide for earlier ones."""
    learner, episode = task_of(factory, frames=frames)
    full = gradient(learner, episode, Full(0, 100))
    total, certainty = torch.zeros_like(full), 0.0
    for rows in itertools.product(range(N), repeat=passes_of(factory)):
        asked, chance = iter(rows), 1.0

        def scripted(sizes: Tensor, labels: Tensor, way: int, h: int, *_: Any) -> Rows:
            nonlocal chance
            row, chances = next(asked), inclusion_probabilities(sizes, h)  # noqa: B023 - called in this round only
            chance *= float(chances[row])
            return Rows(torch.tensor([row]), 1 / chances[[row]])

        with monkeypatch.context() as patch:
            patch.setattr(encoding, "draw_importance", scripted)
            total += gradient(learner, episode, LiteImportance(1, chunk)) * chance
        certainty += chance
    assert certainty == pytest.approx(1)
    assert relative(total, full) < 1e-10


@pytest.mark.parametrize("factory", LEARNERS)
@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("frames", [1, 3])
def test_exact_equals_full(factory: Factory, chunk: int, frames: int) -> None:
    learner, episode = build(factory), clip_episode(11, frames, way=3)
    full = gradient(learner, episode, Full(0, 100))
    assert relative(gradient(learner, episode, Exact(0, chunk)), full) < 1e-10


@pytest.mark.parametrize("factory", LEARNERS)
@pytest.mark.parametrize("estimator", [Full, Exact, Lite, LiteStratified, LiteImportance, LiteRedraw])
@pytest.mark.parametrize("frames", [1, 2])
def test_the_query_batch_size_never_changes_the_gradient(factory: Factory, estimator: type[Any], frames: int) -> None:
    learner, episode = build(factory), clip_episode(N, frames, m=7)
    h = N if estimator is LiteRedraw else H
    whole = gradient(learner, episode, estimator(h, 3))
    for size in (1, 2, 5):
        assert relative(gradient(learner, episode, estimator(h, 3), batch_size=size), whole) < 1e-10


@pytest.mark.parametrize("factory", LEARNERS)
@pytest.mark.parametrize("frames", [1, 2])
def test_lite_with_h_of_at_least_n_is_the_full_gradient(factory: Factory, frames: int) -> None:
    learner, episode = task_of(factory, frames=frames)
    full = gradient(learner, episode, Full(0, 100))
    kinds: list[Any] = [Lite, LiteStratified, LiteImportance]
    for h, kind in itertools.product((N, N + 5), kinds):
        assert relative(gradient(learner, episode, kind(h, 2)), full) < 1e-10


@pytest.mark.parametrize("factory", LEARNERS)
@pytest.mark.parametrize("estimator", [Exact, Lite, LiteStratified, LiteImportance, LiteRedraw, LiteCode, LitePaper])
@pytest.mark.parametrize("h", [0, 1, 4])
def test_forward_values_are_those_of_full(factory: Factory, estimator: type[Full], h: int) -> None:
    learner, episode = build(factory), tiny_episode(n=N)
    generator = torch.Generator().manual_seed(1)

    def logits(kind: type[Full]) -> Tensor:
        draw = kind(h, 4).begin(episode.support, generator)
        state = learner.adapt(draw.support, draw.encode())
        (batch,) = episode.query
        values: Tensor = learner.classify(state, batch.images)
        return values.detach()

    torch.testing.assert_close(logits(estimator), logits(Full), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("factory", [CNAPs, SimpleCNAPs])
@pytest.mark.parametrize("estimator", [Lite, LiteStratified, LiteImportance])
def test_without_gradient_rows_only_the_set_encoder_is_left_untrained(factory: Factory, estimator: Any) -> None:
    learner, episode = build(factory), tiny_episode(n=N)
    gradient(learner, episode, estimator(0, 100))
    trained = {name for name, p in learner.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert not any("set_encoder" in name for name in trained)
    assert any("generators" in name for name in trained)


def test_protonets_learns_from_queries_alone() -> None:
    learner, episode = build(ProtoNets), tiny_episode(n=N)
    assert gradient(learner, episode, Lite(0, 100)).norm() > 1e-3


@pytest.mark.parametrize("factory", LEARNERS)
def test_every_head_reaches_the_support_features(factory: Factory) -> None:
    """Guards against heads that detach class statistics: the support path alone must carry a gradient."""
    learner, episode = build(factory), tiny_episode(n=N)
    with_support = gradient(learner, episode, Full(0, 100))
    without = gradient(learner, episode, Lite(0, 100))
    assert relative(without, with_support) > 1e-2


def test_the_variance_of_lite_falls_as_without_replacement() -> None:
    """Var is proportional to (N - H) / (H (N - 1)) on the support path (`learners.md` 3.1)."""
    learner, episode = build(ProtoNets), tiny_episode(n=N)
    spread = {}
    for h in (1, 2, 3, 5):
        draws = torch.stack([gradient(learner, episode, Scripted((rows,), N)) for rows in subsets(N, h)])
        spread[h] = float(draws.var(0, unbiased=False).sum())
    for h in (2, 3, 5):
        expected = (N - h) / (h * (N - 1))
        assert spread[h] / spread[1] == pytest.approx(expected, rel=1e-8)


def test_subsample_keeps_every_class_and_changes_the_task() -> None:
    episode = tiny_episode(n=12, way=4)
    for h in (1, 4, 7, 50):
        draw = Subsample(h, 100).begin(episode.support, torch.Generator().manual_seed(h))
        assert len(draw.support.labels) == min(12, max(h, 4))
        assert sorted(set(draw.support.labels.tolist())) == [0, 1, 2, 3]


@pytest.mark.parametrize("factory", LEARNERS)
def test_exact_in_float32_is_as_near_to_the_true_gradient_as_full(factory: Factory) -> None:
    """Both carry their own rounding; measured against float64 (a smooth network), running chunks again adds none."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        learner: Any = factory(timm_backbone("efficientnet_b0+gn", image_size=64, pretrained=False)).train()
    episode = tiny_episode(n=24, way=4, m=12, side=64)
    full, exact = (gradient(learner, episode, kind(0, 5), batch_size=12) for kind in (Full, Exact))
    true = gradient(learner.double(), episode, Full(0, 5), batch_size=12)
    assert relative(exact.double(), full.double()) < 2e-5
    assert relative(exact.double(), true) < 1.5 * relative(full.double(), true)
    assert relative(full.double(), true) < 2e-5
