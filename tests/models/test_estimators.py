"""What the estimators draw, replay and keep in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lite_bench.harness.clips import ItemEncode, started_task
from lite_bench.harness.core import Episode, Support
from lite_bench.harness.step import accumulate_task_gradient
from lite_bench.models.class_statistics import class_means
from lite_bench.models.cnaps import CNAPs, LinearTask
from lite_bench.models.draws import Rows, draw_rows, draw_stratified, draw_uniform
from lite_bench.models.encoding import ExactEncode, encode_in_chunks, encode_with_gradient_rows
from lite_bench.models.estimators import (
    Exact,
    Full,
    Lite,
    LiteCode,
    LiteImportance,
    LiteOrbitCode,
    LitePaper,
    LiteRedraw,
    LiteStratified,
    Subsample,
)
from lite_bench.models.mahalanobis import fit_class_gaussians
from lite_bench.models.protonets import ProtoNets, Prototypes
from lite_bench.models.simple_cnaps import GaussianTask, SimpleCNAPs
from lite_bench.models.task_encoder import AdaptedBody
from tests.models.toys import Factory, build, clip_episode, gradient, tiny_episode


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(n=st.integers(1, 9), h=st.integers(0, 9), chunk=st.integers(1, 10), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_rows_with_gradient_keep_their_order_and_carry_the_factor(n: int, h: int, chunk: int, seed: int) -> None:
    weight = torch.ones(3, requires_grad=True)
    images = torch.arange(n * 3, dtype=torch.float32).view(n, 3, 1, 1)
    rows = draw_rows(n, h, generator(seed))
    factors = torch.arange(1, len(rows) + 1, dtype=torch.float64)
    seen: list[int] = []

    def network(part: Tensor) -> Tensor:
        assert len(part) <= chunk
        seen.append(len(part))
        return part.flatten(1) * weight

    features = encode_with_gradient_rows(network, images, Rows(rows, factors), chunk)
    assert torch.equal(features, images.flatten(1))
    assert sum(seen) == n  # each image once
    if len(rows):
        (found,) = torch.autograd.grad(features.sum(), weight)
        torch.testing.assert_close(found, factors.float() @ images.flatten(1)[rows])
    else:
        assert not features.requires_grad


class Noisy(nn.Module):
    """A network with dropout and stochastic depth."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 16), nn.Linear(16, 16)
        self.dropout = nn.Dropout(0.4)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.dropout(self.first(images.flatten(1)).tanh())
        keep = (torch.rand(len(images), 1) < 0.7).to(hidden.dtype) / 0.7
        result: Tensor = hidden + keep * self.second(hidden).tanh()
        return result


@pytest.mark.parametrize("autocast", [False, True])
def test_exact_replays_dropout_stochastic_depth_and_autocast(autocast: bool) -> None:
    torch.manual_seed(0)
    network, images = Noisy().train(), torch.randn(10, 3, 2, 2)

    def run(encode: Callable[[Any, Tensor], Tensor]) -> list[Tensor]:
        torch.manual_seed(9)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            features = encode(network, images)
        torch.manual_seed(1000)  # a recomputation that did not restore the state would now draw other masks
        return [features, *torch.autograd.grad(features.float().square().sum(), list(network.parameters()))]

    exact = run(ExactEncode(4))
    plain = run(lambda net, x: encode_in_chunks(net, x, 4))
    assert all(torch.equal(a, b) for a, b in zip(exact, plain, strict=True))
    torch.manual_seed(10)
    assert not torch.equal(ExactEncode(4)(network, images), exact[0])


class Counted:
    """Measure the bytes that autograd keeps, at their highest, while a task's gradient is computed.

    A saved tensor counts from its packing until the graph that holds it is freed.
    """

    def __init__(self) -> None:
        self.now = self.peak = 0

    class Packed:
        def __init__(self, owner: Counted, tensor: Tensor) -> None:
            self.owner, self.tensor = owner, tensor
            self.size = tensor.numel() * tensor.element_size()
            owner.now += self.size
            owner.peak = max(owner.peak, owner.now)

        def __del__(self) -> None:
            self.owner.now -= self.size

    def run(self, learner: Any, estimator: Any, n: int, chunk: int = 4) -> int:
        episode = tiny_episode(n=n, way=2, m=4)
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: self.Packed(self, t), lambda packed: packed.tensor)
        with hooks:
            accumulate_task_gradient(learner, episode, estimator, chunk, generator())
        return self.peak


def test_exact_runs_and_reruns_one_chunk_at_a_time() -> None:
    sizes, weight = [], torch.ones(3, requires_grad=True)

    def network(part: Tensor) -> Tensor:
        sizes.append(len(part))
        return part.flatten(1).square() * weight.tanh()

    features = ExactEncode(4)(network, torch.randn(10, 3, 1, 1))
    assert sizes == [4, 4, 2]
    torch.autograd.backward(features.sum())
    assert sorted(sizes) == [2, 2, 4, 4, 4, 4]


def images_excluded(peak: int, n: int) -> float:
    """Take off the uint8 images, which `exact` must keep to recompute from."""
    return peak - 2 * n * 3 * 32 * 32


@pytest.mark.parametrize("factory", [ProtoNets, CNAPs, SimpleCNAPs])
def test_memory_of_lite_and_exact_does_not_grow_with_the_support_set(factory: Factory) -> None:
    learner = build(factory)

    def growth(estimator: Any) -> float:
        small, large = (images_excluded(Counted().run(learner, estimator, n), n) for n in (20, 80))
        return large / small

    assert growth(Exact(0, 4)) < 1.25
    assert growth(Lite(4, 4)) < 1.25
    assert growth(LiteStratified(4, 4)) < 1.25
    assert growth(LiteImportance(4, 4)) < 1.25
    assert growth(LiteRedraw(4, 4)) < 1.25
    assert growth(Full(0, 4)) > 3


@pytest.mark.parametrize("factory", [ProtoNets, SimpleCNAPs])
@pytest.mark.parametrize(
    "estimator", [Lite, LiteStratified, LiteImportance, LiteRedraw, LiteCode, LiteOrbitCode, LitePaper, Subsample]
)
def test_draws_follow_the_generator_alone(factory: Factory, estimator: Any) -> None:
    learner, episode = build(factory), tiny_episode(n=12, way=2)
    torch.manual_seed(0)
    first = gradient(learner, episode, estimator(3, 100), seed=1)
    torch.manual_seed(1)
    assert torch.equal(gradient(learner, episode, estimator(3, 100), seed=1), first)
    assert not torch.equal(gradient(learner, episode, estimator(3, 100), seed=2), first)


def test_successive_tasks_and_passes_get_different_rows() -> None:
    source, support = generator(), tiny_episode(n=12).support
    rows: list[list[int]] = []

    def network(images: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            rows.append([int((support.images == image).flatten(1).all(1).nonzero()) for image in images])
        return images.flatten(1)[:, :2].double().requires_grad_(torch.is_grad_enabled())

    for _ in range(3):
        encode = Lite(3, 100).begin(support, source).encode()
        encode(network, support.images)
        encode(network, support.images)
    assert len({tuple(sorted(each)) for each in rows}) > 4


def test_importance_gives_rows_the_loss_asks_more_of_a_larger_chance() -> None:
    support, source = tiny_episode(n=8, way=2).support, generator()
    weights = torch.tensor([8.0, 1, 1, 1, 1, 1, 1, 0], dtype=torch.float64)
    counts = torch.zeros(8)
    for _ in range(1500):
        encode = LiteImportance(3, 100).begin(support, source).encode()
        weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
        seen: list[Tensor] = []

        def network(images: Tensor, seen: list[Tensor] = seen, weight: Tensor = weight) -> Tensor:
            seen.append(images)
            return images.flatten(1)[:, :1].double() * weight

        features = encode(network, support.images)
        torch.autograd.backward((features.squeeze(1) * weights).sum())
        encode.finish()  # type: ignore[attr-defined]  # optional in the protocol
        for image in seen[1]:
            counts[(support.images == image).flatten(1).all(1)] += 1
    chances = counts / 1500
    assert chances[0] == 1  # 8 of 14 parts is more than a third
    assert chances[7] == 0
    assert bool(((chances[1:7] - 2 / 6).abs() < 0.05).all())


@pytest.mark.parametrize("kind", [LiteImportance, LiteStratified, Lite])
def test_rows_of_a_random_network_are_drawn_ahead_and_keep_their_masks(kind: Any) -> None:
    """With H = N the gradient must be that of the very masks which the values were computed with."""
    support = tiny_episode(n=6, way=2).support
    network = Noisy().double().train()
    images = torch.randn(6, 3, 2, 2, dtype=torch.float64, generator=generator())
    estimator = kind(6, 100)
    for _ in range(2):  # found out in the first task, known in the second
        torch.manual_seed(3)
        encode = estimator.begin(support, generator()).encode()
        features = encode(network, images)
        torch.manual_seed(1000)
        torch.autograd.backward(features.square().sum())
        getattr(encode, "finish", lambda: None)()
        found = [p.grad for p in network.parameters()]
        network.zero_grad(set_to_none=True)
        # The same masks in the same rows: the drawn order is the order of the plain forward.
        torch.manual_seed(3)
        order = generator()
        rows = draw_stratified(support.labels, 2, 6, order) if kind is not Lite else draw_uniform(6, 6, order)
        plain = network(images[rows.indices])
        torch.testing.assert_close(features, plain[torch.argsort(rows.indices)])
        expected = torch.autograd.grad(plain.square().sum(), list(network.parameters()))
        assert all(torch.allclose(a, b) for a, b in zip(found, expected, strict=True) if a is not None)
    assert getattr(estimator, "random_passes", {0}) == {0}


def test_a_random_pass_beside_a_plain_one_gives_the_same_whether_known_or_not() -> None:
    """A resumed run finds out anew in its first task: that must not change a bit."""
    support, networks = tiny_episode(n=6, way=2).support, (nn.Linear(12, 3).double(), Noisy().double().train())
    images = torch.randn(6, 3, 2, 2, dtype=torch.float64, generator=generator())
    estimator, found = LiteImportance(2, 4), []
    for _ in range(2):
        torch.manual_seed(3)
        encode = estimator.begin(support, generator()).encode()
        plain = encode(lambda part: networks[0](part.flatten(1)), images)
        random = encode(networks[1], images)
        torch.autograd.backward(plain.square().sum() + random.square().sum())
        encode.finish()  # type: ignore[attr-defined]  # optional in the protocol
        gradients = [p.grad for network in networks for p in network.parameters() if p.grad is not None]
        found.append(torch.cat([gradient.flatten() for gradient in gradients]))
        for network in networks:
            network.zero_grad(set_to_none=True)
    assert estimator.random_passes == {1}
    assert torch.equal(*found)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_gradients_that_are_not_finite_reach_the_weights(value: float) -> None:
    """So that the step is refused, rather than rows being left out."""
    support = tiny_episode(n=6, way=2).support
    network = nn.Linear(12, 3)
    encode = LiteImportance(2, 4).begin(support, generator()).encode()
    features = encode(lambda part: network(part.flatten(1)), torch.randn(6, 3, 2, 2))
    torch.autograd.backward(features.sum() * value)
    encode.finish()  # type: ignore[attr-defined]  # optional in the protocol
    assert network.weight.grad is not None
    assert not bool(network.weight.grad.isfinite().all())


def test_lite_code_draws_once_for_all_passes_and_caches_values() -> None:
    support, calls = tiny_episode(n=6).support, []

    def network(images: Tensor) -> Tensor:
        calls.append((torch.is_grad_enabled(), len(images)))
        return images.flatten(1)[:, :2].double().requires_grad_(torch.is_grad_enabled())

    draw = LiteCode(2, 4).begin(support, generator())
    for _ in range(2):  # query batches
        encode = draw.encode()
        encode(network, support.images)
        encode(network, support.images)
    whole, own = [(False, 4), (False, 2)], [(True, 2)]
    assert calls == whole + own + whole + own + own + own


def test_lite_paper_scales_the_update() -> None:
    assert LitePaper(4, 1).update_scale(10) == 2.5
    assert LitePaper(40, 1).update_scale(10) == 1.0
    assert LitePaper(0, 1).update_scale(10) == 10.0
    assert all(kind(4, 1).update_scale(10) == 1.0 for kind in (Lite, LiteImportance, LiteCode, Full, Exact, Subsample))


@pytest.mark.parametrize(
    "estimator",
    [Full, Exact, Lite, LiteStratified, LiteImportance, LiteRedraw, LiteCode, LiteOrbitCode, LitePaper, Subsample],
)
def test_without_gradients_every_estimator_is_the_plain_forward_in_chunks(estimator: Any) -> None:
    support, sizes = tiny_episode(n=7).support, []

    def network(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return images.flatten(1).double()

    with torch.no_grad():
        draw = estimator(7, 3).begin(Support(support.images, support.labels, support.way), generator())
        features = draw.encode()(network, draw.support.images)
    assert torch.equal(features, support.images.flatten(1).double())
    assert sizes == [3, 3, 1]


def numbered_clips(n: int, frames: int) -> Support:
    """Clips of one pixel whose frames are numbered; a clip of one frame is an image."""
    images = torch.arange(n * frames, dtype=torch.uint8).view(n, frames, 1, 1, 1).expand(-1, -1, 3, 1, 1)
    return Support(images[:, 0] if frames == 1 else images, torch.arange(n) % 2, 2)


def frame_counts(support: Support, h: int, chunk: int) -> tuple[Tensor, Tensor, Tensor]:
    """Say how often each frame counts in the mean of `LiteOrbitCode`, and in that of its pass ahead.

    Returns:
        weights of the frames in the mean with gradients, in the part of it that has one, and in the mean ahead.
    """
    n_frames = support.images.flatten(0, -4).shape[0]
    scale = torch.ones(1, dtype=torch.float64, requires_grad=True)

    def network(images: Tensor) -> Tensor:
        return torch.eye(n_frames, dtype=torch.float64)[images[:, 0, 0, 0].long()] * scale

    draw = LiteOrbitCode(h, chunk).begin(support, generator())
    with torch.no_grad():
        ahead = ItemEncode(draw.caching()).mean(network, support.images)  # type: ignore[attr-defined]  # optional
    mean = ItemEncode(draw.encode()).mean(network, support.images)
    with_gradient = [torch.autograd.grad(m, scale, retain_graph=True)[0] for m in mean] if h else mean.detach() * 0
    return mean.detach(), torch.stack([*with_gradient]).squeeze(), ahead


@pytest.mark.parametrize("chunk", [2, 100])
def test_the_orbit_code_mixes_clips_and_frames_in_its_task_embedding(chunk: int) -> None:
    """`orbit.md` 6.1: N = 12 clips of T = 8, H = 3, so 24 + 9 = 33 rows instead of 96, the 9 from the first 12."""
    support = numbered_clips(12, 8)
    mean, with_gradient, ahead = frame_counts(support, 3, chunk)
    torch.testing.assert_close(ahead, torch.full((96,), 1 / 96, dtype=torch.float64))
    rows, own = mean * 33, with_gradient * 33
    assert rows.sum().item() == pytest.approx(33)
    torch.testing.assert_close(rows, rows.round())
    drawn = own.view(12, 8).round().sum(1)
    assert sorted(drawn.tolist()) == [0] * 9 + [8] * 3  # whole clips
    others = (drawn == 0).nonzero().squeeze(1)
    expected = torch.zeros(96, dtype=torch.float64)
    expected[others] = 1
    torch.testing.assert_close(rows - own, expected)


@pytest.mark.parametrize(("frames", "h"), [(1, 0), (1, 3), (1, 12), (1, 20), (8, 12), (8, 20)])
def test_the_task_embedding_of_the_orbit_code_is_the_plain_mean_for_images_and_where_all_clips_are_drawn(
    frames: int, h: int
) -> None:
    mean, with_gradient, ahead = frame_counts(numbered_clips(12, frames), h, 100)
    torch.testing.assert_close(mean, torch.full_like(mean, 1 / (12 * frames)))
    torch.testing.assert_close(ahead, mean)
    assert int((with_gradient > 0).sum()) == min(h, 12) * frames


def test_clips_of_one_frame_are_images() -> None:
    support = numbered_clips(12, 1)
    clips = Support(support.images.unsqueeze(1), support.labels, 2)
    for a, b in zip(frame_counts(support, 3, 2), frame_counts(clips, 3, 2), strict=True):
        assert torch.equal(a, b)


def orbit_code_gradient(learner: Any, episode: Episode, h: int, n_queries: int, seed: int) -> Tensor:
    """Compute what the released ORBIT code does to a task, step by step as `orbit.md` 4.3 and 6.1 tell it."""
    source, support = generator(seed), episode.support
    images, labels, way = support.images, support.labels, support.way
    n, frames = images.shape[:2]
    film = None

    def clip_features(clips: Tensor) -> Tensor:
        backbone = learner.backbone if isinstance(learner, ProtoNets) else learner.body.backbone
        values: Tensor = backbone(clips.flatten(0, 1), film)
        return values.view(len(clips), frames, -1).mean(1)

    def film_of(embedding: Tensor) -> dict[str, Tensor] | None:
        if isinstance(learner, ProtoNets):
            return None
        generated: dict[str, Tensor] = learner.body.generators(embedding, learner.body.backbone.network)
        return generated

    def frame_embeddings(clips: Tensor) -> Tensor:
        if isinstance(learner, ProtoNets):
            return torch.zeros(clips.shape[0] * frames, 1)
        embedded: Tensor = learner.body.set_encoder(clips.flatten(0, 1))
        return embedded

    def head(features: Tensor, labels: Tensor) -> Any:
        if isinstance(learner, SimpleCNAPs):
            return GaussianTask(AdaptedBody(film or {}), fit_class_gaussians(features, labels, way, 1.0, False))
        means = class_means(features, labels, way)
        if isinstance(learner, ProtoNets):
            return Prototypes(means)
        return LinearTask(AdaptedBody(film or {}), *learner.head(means))

    with torch.no_grad():
        cached_embeddings = frame_embeddings(images)
        film = film_of(cached_embeddings.mean(0))
        cached_features = clip_features(images)
    (batch,) = episode.query
    learner.zero_grad(set_to_none=True)
    parts = zip(torch.split(batch.images, n_queries), torch.split(batch.labels, n_queries), strict=True)
    for queries, answers in parts:
        order = torch.randperm(n, generator=source)
        near, far = order[:h], order[h:]
        film = film_of(torch.cat([frame_embeddings(images[near]), cached_embeddings[far]]).mean(0))
        features = torch.cat([clip_features(images[near]), cached_features[far]])
        state = head(features, torch.cat([labels[near], labels[far]]))
        loss = n / h * cross_entropy(learner.logits(state, clip_features(queries)), answers)
        penalty = 0 if isinstance(learner, ProtoNets) else learner.penalty()
        torch.autograd.backward(loss + penalty)
    parameters = [p for p in learner.parameters() if p.requires_grad]
    return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])


@pytest.mark.parametrize(
    ("factory", "options"),
    [
        (ProtoNets, {}),
        (ProtoNets, {"batch_statistics": True}),
        (CNAPs, {"gate_penalty": 0.5}),
        (SimpleCNAPs, {}),
        (SimpleCNAPs, {"set_statistics": "batch"}),
    ],
)
@pytest.mark.parametrize("h", [1, 2, 6, 9])
def test_the_orbit_code_is_what_its_description_says(factory: Factory, options: dict[str, Any], h: int) -> None:
    """Its gradient, and the running statistics that its passes leave behind."""
    frames, n_queries, seed = 3, 2, 4
    learners = [build(factory, **options) for _ in range(2)]
    episode = clip_episode(6, frames, m=5)
    found = gradient(learners[0], episode, LiteOrbitCode(h, 100), batch_size=n_queries * frames, seed=seed)
    expected = orbit_code_gradient(learners[1], episode, h, n_queries, seed)
    assert expected.norm() > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    for a, b in zip(*(dict(learner.named_buffers()).values() for learner in learners), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("factory", [ProtoNets, CNAPs, SimpleCNAPs])
def test_the_chunk_never_changes_the_gradient_of_the_orbit_code(factory: Factory) -> None:
    learner, episode = build(factory), clip_episode(6, 3)
    whole = gradient(learner, episode, LiteOrbitCode(4, 100))
    for chunk in (1, 6, 9):
        torch.testing.assert_close(gradient(learner, episode, LiteOrbitCode(4, chunk)), whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("factory", [ProtoNets, CNAPs, SimpleCNAPs])
def test_the_orbit_code_is_plain_in_an_evaluation(factory: Factory) -> None:
    learner, episode = build(factory).eval(), clip_episode(6, 3)
    (batch,) = episode.query
    logits = []
    for estimator in (Full(0, 100), LiteOrbitCode(2, 100)):
        with torch.no_grad(), started_task(estimator, episode.support, generator()) as draw:
            state = learner.adapt(draw.support, ItemEncode(draw.encode()))
            logits.append(learner.classify(state, batch.images[:, 0]))
    assert torch.equal(*logits)


def test_the_orbit_code_scales_the_loss_by_n_over_h_as_asked() -> None:
    assert LiteOrbitCode(8, 1).update_scale(56) / 16 == 0.4375  # `orbit.md` 7, item 28: of a step of 16 tasks
    assert LiteOrbitCode(16, 1).update_scale(8) == 0.5
    assert LiteOrbitCode(0, 1).update_scale(8) == 8
