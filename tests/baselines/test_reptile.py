"""Reptile against a literal implementation: a copied network, torch.optim.Adam, theta + eps * mean(theta' - theta)."""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lite_bench.baselines.inner_loop import content_order, mini_batches
from lite_bench.baselines.reptile import Reptile
from lite_bench.harness.assembly import build_backbone, check_estimator_fits
from lite_bench.harness.checks import check_learner
from lite_bench.harness.core import Episode, QueryBatch, Support, stable_key
from lite_bench.harness.errors import DivergedError, IncompatibleError, UsageError
from lite_bench.harness.step import accumulate_task_gradient
from lite_bench.models.backbones import Backbone
from lite_bench.models.encoding import FullEncode
from lite_bench.models.estimators import Exact, Full, Lite, LiteRedraw, Subsample
from tests.models.toys import build, gradient, tiny_backbone, tiny_episode

EPISODE = tiny_episode(n=9, way=3, m=7)
TASKS = (EPISODE, tiny_episode(n=10, way=2, m=5, seed=3), tiny_episode(n=4, way=4, m=6, seed=5))
RATES: dict[str, Any] = {"steps": 4, "test_steps": 6, "inner_lr": 0.02}


def expected_batches(support: Support, size: int) -> Iterator[Tensor]:
    """Draw the mini-batches anew: items by the hash of their bytes, a permutation after the other, cut."""
    n = len(support.labels)
    digests = [hashlib.sha256(bytes(image.flatten().tolist())).hexdigest() for image in support.images]
    order = sorted(range(n), key=lambda row: digests[row])
    generator = torch.Generator().manual_seed(stable_key(*(digests[row] for row in order)))
    stream: list[int] = []
    while True:
        stream += [order[place] for place in torch.randperm(n, generator=generator).tolist()]
        while len(stream) >= size:
            yield torch.tensor(stream[:size])
            stream = stream[size:]


def literal(learner: Any, support: Support, steps: int, batch: int) -> tuple[Backbone, nn.Linear]:
    """Take the inner steps on a copy of the network and the head."""
    body: Backbone = copy.deepcopy(learner.backbone).eval()
    if learner.way:
        head = copy.deepcopy(learner.head)
    else:
        head = nn.Linear(body.features, support.way).double()
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=learner.inner_lr, betas=(0.0, 0.999))
    whole: Iterable[Tensor] = (torch.arange(len(support.labels)) for _ in range(steps))
    for rows in islice(expected_batches(support, batch), steps) if batch else whole:
        optimizer.zero_grad()
        torch.autograd.backward(cross_entropy(head(body(support.images[rows])), support.labels[rows]))
        optimizer.step()
    return body, head


def flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch", [0, 4])
@pytest.mark.parametrize("way", [0, 3])
@pytest.mark.parametrize(("chunk", "gradients"), [(3, True), (100, False)])
def test_the_inner_loop_is_the_literal_one(training: bool, batch: int, way: int, chunk: int, gradients: bool) -> None:
    other = 2 if batch else 5
    sizes = {"inner_batch": batch, "test_batch": other} if training else {"inner_batch": other, "test_batch": batch}
    learner = build(Reptile, way=way, **sizes, **RATES).train(training)
    with torch.set_grad_enabled(gradients):
        state = learner.adapt(EPISODE.support, FullEncode(chunk))
    body, head = literal(learner, EPISODE.support, 4 if training else 6, batch)
    assert set(state.backbone) == {name for name, _ in learner.backbone.network.named_parameters()}
    for name, parameter in body.network.named_parameters():
        torch.testing.assert_close(state.backbone[name].detach(), parameter.detach(), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(state.weight.detach(), head.weight.detach(), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(state.bias.detach(), head.bias.detach(), rtol=1e-8, atol=1e-10)
    (batch_,) = EPISODE.query
    found = learner.classify(state, batch_.images)
    torch.testing.assert_close(found.detach(), head(body(batch_.images)).detach(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("query_batch", [1, 3, 100])
@pytest.mark.parametrize("inner_batch", [0, 3])
@pytest.mark.parametrize("estimator", [Full(0, 4), Exact(0, 4), Lite(2, 4)])
def test_an_outer_step_of_sgd_is_reptiles(query_batch: int, inner_batch: int, estimator: Any) -> None:
    """However many query batches a task has, its displacement counts once."""
    epsilon = 0.3
    learner = build(Reptile, inner_batch=inner_batch, **RATES)
    before = flat(learner.parameters())
    displacements = [
        flat(literal(learner, episode.support, 4, inner_batch)[0].parameters()) - before for episode in TASKS
    ]
    optimizer = torch.optim.SGD(learner.parameters(), lr=epsilon)
    for episode in TASKS:
        accumulate_task_gradient(learner, episode, estimator, query_batch, torch.Generator())
    for parameter in learner.parameters():
        assert parameter.grad is not None
        parameter.grad.div_(len(TASKS))
    optimizer.step()
    expected = before + epsilon * torch.stack(displacements).mean(0)
    assert (expected - before).norm() > 1e-2
    torch.testing.assert_close(flat(learner.parameters()), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("query_batch", [2, 100])
def test_a_learned_head_moves_as_the_backbone_does(query_batch: int) -> None:
    learner = build(Reptile, way=3, **RATES)
    body, head = literal(learner, EPISODE.support, 4, 0)
    expected = flat(learner.parameters()) - flat([*body.parameters(), *head.parameters()])
    found = gradient(learner, EPISODE, Full(0, 4), query_batch)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    assert found[-len(head.bias) :].abs().min() > 1e-3


def test_queries_play_no_part_in_the_update() -> None:
    learner = build(Reptile, **RATES)
    other = tiny_episode(n=2, way=3, m=4, seed=9)
    (batch,) = EPISODE.query
    mislabelled = QueryBatch(batch.images, (batch.labels + 1) % 3)
    reference = gradient(learner, EPISODE, Full(0, 4))
    for query, n in ((other.query, 4), ((mislabelled,), 7)):
        changed: Episode = replace(EPISODE, query=query, n_query=n)
        assert torch.equal(gradient(learner, changed, Full(0, 4)), reference)


def test_a_subsample_moves_towards_its_own_network() -> None:
    """The displacement is that of the support set that an estimator shows."""
    learner = build(Reptile, **RATES)
    found = gradient(learner, EPISODE, Subsample(6, 4))
    assert (found - gradient(learner, EPISODE, Full(0, 4))).norm() > 1e-3


def test_evaluation_leaves_no_graph() -> None:
    learner = build(Reptile, **RATES).eval()
    with torch.no_grad():
        state = learner.adapt(EPISODE.support, FullEncode(4))
    assert not any(tensor.requires_grad for tensor in (*state.backbone.values(), state.weight, state.bias))


def test_a_zero_head_takes_two_steps_to_move_the_backbone() -> None:
    assert not gradient(build(Reptile, steps=1), EPISODE, Full(0, 4)).any()
    assert gradient(build(Reptile, steps=2), EPISODE, Full(0, 4)).any()
    assert gradient(build(Reptile, steps=1, way=3), EPISODE, Full(0, 4)).any()


def test_rounding_does_not_decide_about_the_bias_of_a_balanced_task() -> None:
    """Its gradient is 0 at first; Adam makes a whole step of what single precision would leave of it."""
    learner = Reptile(tiny_backbone(), test_steps=1, inner_lr=0.1).eval()
    for n, way in ((9, 3), (14, 7), (33, 11)):
        state = learner.adapt(tiny_episode(n=n, way=way).support, FullEncode(4))
        assert state.bias.dtype == torch.float32
        assert float(state.bias.abs().max()) < 1e-6
        assert float(state.weight.abs().max()) == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("batch", [0, 4])
def test_neither_order_nor_names_of_classes_matter(batch: int) -> None:
    learner = build(Reptile, test_batch=batch, **RATES).eval()
    support, (query,) = EPISODE.support, EPISODE.query
    reference = learner.classify(learner.adapt(support, FullEncode(3)), query.images)
    order, names = torch.randperm(9, generator=torch.Generator().manual_seed(1)), torch.tensor([2, 0, 1])
    shuffled = Support(support.images[order], support.labels[order], 3)
    found = learner.classify(learner.adapt(shuffled, FullEncode(100)), query.images)
    torch.testing.assert_close(found, reference, rtol=1e-8, atol=1e-10)
    renamed = Support(support.images, names[support.labels], 3)
    found = learner.classify(learner.adapt(renamed, FullEncode(3)), query.images)[:, names]
    torch.testing.assert_close(found, reference, rtol=1e-8, atol=1e-10)


@given(n=st.integers(1, 12), size=st.integers(1, 15), epochs=st.integers(1, 3), seed=st.integers(0, 2**63 - 1))
def test_mini_batches_go_through_all_items_equally_often(n: int, size: int, epochs: int, seed: int) -> None:
    order = torch.arange(100, 100 + n)
    number = epochs * n if size < n else epochs  # so many batches are `size * epochs` times all items
    batches = list(islice(mini_batches(order, size, torch.Generator().manual_seed(seed)), number))
    assert {len(batch) for batch in batches} == {min(n, size)}
    rows = torch.cat(batches)
    assert set(Counter(rows.tolist()).values()) == {size * epochs if size < n else epochs}
    for first in range(0, len(rows), n):  # every permutation by itself holds every item once
        assert sorted(rows[first : first + n].tolist()) == order.tolist()


def test_the_order_of_items_is_that_of_their_content() -> None:
    images = EPISODE.support.images
    order, key = content_order(images)
    shuffle = torch.randperm(len(images), generator=torch.Generator().manual_seed(2))
    again, same = content_order(images[shuffle])
    assert torch.equal(shuffle[again], order)
    assert same == key
    changed = images.clone()
    changed[4, 0, 0, 0] ^= 1
    assert content_order(changed)[1] != key


def test_defaults_are_the_published_numbers_of_steps() -> None:
    learner = build(Reptile)
    assert (learner.steps, learner.test_steps, learner.inner_lr) == (5, 50, 0.001)
    assert learner.passes == Reptile.passes == "50FB"
    assert build(Reptile, test_steps=10).passes == "10FB"


@pytest.mark.parametrize("mode", [True, False])
def test_batch_norm_statistics_are_fixed_and_the_learner_unchanged(mode: bool) -> None:
    learner = build(Reptile, way=3, **RATES).train(mode)
    assert {m.training for m in learner.modules() if isinstance(m, nn.BatchNorm2d)} == {False}
    before = {key: value.clone() for key, value in learner.state_dict().items()}
    learner.adapt(EPISODE.support, FullEncode(4))
    assert all(torch.equal(before[key], value) for key, value in learner.state_dict().items())
    assert all(p.grad is None for p in learner.parameters())


@pytest.mark.parametrize("batch", [0, 4])
def test_a_loop_that_diverges_says_so(batch: int) -> None:
    learner = build(Reptile, test_batch=batch, inner_lr=1e308).eval()
    with pytest.raises(DivergedError, match=r"The inner loop diverged: .* lower inner learning rates"):
        learner.adapt(EPISODE.support, FullEncode(4))


def test_a_learned_head_refuses_tasks_of_another_way() -> None:
    learner = build(Reptile, way=5)
    with pytest.raises(UsageError, match=r"-P way=5 does not fit a task of 3 classes: .*-S way, train_way.* -P way=0"):
        learner.adapt(EPISODE.support, FullEncode(4))


@pytest.mark.parametrize("name", ["steps", "inner_batch", "test_steps", "test_batch", "way"])
def test_negative_numbers_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"-P {name}=-1 is not usable: it must not be negative"):
        build(Reptile, **{name: -1})


def test_it_keeps_the_contract() -> None:
    """In few steps: Adam without momentum amplifies rounding on a network whose BatchNorm normalises nothing."""
    backbone: Any = build_backbone("conv4", image_size=32, pretrained=False)
    check_learner(Reptile(backbone, steps=2, test_steps=2))


def test_it_learns_to_start_nearer_to_its_tasks() -> None:
    learner = build(Reptile, steps=4, test_steps=4, inner_lr=0.02)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.5)

    def loss() -> float:
        total = 0.0
        for episode in TASKS:
            (batch,) = episode.query
            logits = learner.classify(learner.adapt(episode.support, FullEncode(100)), batch.images)
            total += float(cross_entropy(logits.detach(), batch.labels))
        return total

    start = loss()
    for _ in range(6):
        optimizer.zero_grad()
        for episode in TASKS:
            accumulate_task_gradient(learner, episode, Full(0, 100), 100, torch.Generator())
        optimizer.step()
    assert loss() < 0.9 * start


def test_a_gradient_that_adapts_again_for_every_query_batch_is_refused() -> None:
    with pytest.raises(IncompatibleError, match="would then count several times"):
        check_estimator_fits(build(Reptile), LiteRedraw(2, 4))
    check_estimator_fits(build(Reptile), Full(0, 4))
