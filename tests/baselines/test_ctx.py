"""CrossTransformers against the formula written out with einsum, closed forms, and enumeration of LITE's draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import conv2d, cross_entropy

from lite_bench.baselines.ctx import CrossTransformers, SupportPositions, attend
from lite_bench.harness.clips import ItemEncode, classify
from lite_bench.harness.core import Episode, Support
from lite_bench.harness.errors import UsageError
from lite_bench.harness.measurement.peak import measure_peak
from lite_bench.models import encoding
from lite_bench.models.backbones import Backbone, conv4
from lite_bench.models.draws import Rows, inclusion_probabilities
from lite_bench.models.encoding import FullEncode
from lite_bench.models.estimators import Exact, Full, Lite, LiteImportance, LiteStratified
from tests.models.toys import SIDE, Scripted, TinyNetwork, clip_episode, gradient, subsets, tiny_backbone, tiny_episode

LENGTHS = {"key_features": 3, "value_features": 4}
N, H = 5, 2


class MapNetwork(TinyNetwork):
    """The tiny network before its pooling: maps of 5 x 5 x 7 positions, cut to 2 x 3 so that the two sides differ."""

    def forward_features(self, pixels: Tensor) -> Tensor:
        maps: Tensor = self.blocks(pixels)
        return maps[:, :, :2, :3] * 4

    def forward(self, pixels: Tensor) -> Tensor:
        return self.forward_features(pixels).mean((2, 3))


def build(**options: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        learner = CrossTransformers(Backbone("maps", MapNetwork(), SIDE), **{**LENGTHS, **options})
        for projection in (learner.to_keys, learner.to_values):
            nn.init.normal_(projection.weight)  # far from the uniform attention of small keys
    return learner.double().train()


def literal_positions(learner: Any, items: Tensor, weight: Tensor) -> Tensor:
    """Project the maps of images, or the mean over the frames of clips; [n, P, length]."""
    frames = items if items.ndim == 4 else items.flatten(0, 1)
    maps = conv2d(learner.backbone.network.forward_features(learner.backbone.scale(frames)), weight)
    positions = torch.stack([maps[:, :, i, j] for i in range(2) for j in range(3)], 1)
    return positions if items.ndim == 4 else positions.view(*items.shape[:2], *positions.shape[1:]).mean(1)


def literal_logits(learner: Any, support: Support, queries: Tensor) -> Tensor:
    """Write out section 3.2 of the paper, one class and one position of the query after the other."""
    sides = (support.images, queries)
    keys, q = (literal_positions(learner, images, learner.to_keys.weight) for images in sides)
    values, v = (literal_positions(learner, images, learner.to_values.weight) for images in sides)
    columns = []
    for c in range(support.way):
        own_keys, own_values = keys[support.labels == c], values[support.labels == c]
        total = torch.zeros(len(queries), dtype=torch.float64)
        for p in range(q.shape[1]):
            fit = torch.einsum("jmd,bd->bjm", own_keys, q[:, p]) / learner.key_features**0.5
            attention = fit.exp() / fit.exp().sum((1, 2), keepdim=True)
            aligned = torch.einsum("bjm,jmd->bd", attention, own_values)
            total = total + (v[:, p] - aligned).square().sum(1)
        columns.append(-total / q.shape[1])
    return torch.stack(columns, 1)


def literal_gradient(learner: Any, episode: Episode) -> Tensor:
    (batch,) = episode.query
    loss = cross_entropy(literal_logits(learner, episode.support, batch.images), batch.labels)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(learner.parameters()))])


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("lengths", [LENGTHS, {"key_features": 6, "value_features": 2}, dict.fromkeys(LENGTHS, 4)])
def test_logits_and_gradient_are_those_of_the_formula(frames: int, lengths: dict[str, int]) -> None:
    learner, episode = build(**lengths), clip_episode(7, frames, way=3, m=4)
    (batch,) = episode.query
    state = learner.adapt(episode.support, ItemEncode(FullEncode(4)))
    expected = literal_logits(learner, episode.support, batch.images)
    assert expected.std(1).min() > 1e-2  # classes are told apart
    torch.testing.assert_close(classify(learner, state, batch.images), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        gradient(learner, episode, Full(0, 100)), literal_gradient(learner, episode), rtol=1e-8, atol=1e-12
    )


def test_the_state_is_the_support_set_class_after_class() -> None:
    learner, episode = build(), tiny_episode(n=7, way=3)
    state = learner.adapt(episode.support, FullEncode(4))
    order = [0, 3, 6, 1, 4, 2, 5]  # labels are 0 1 2 0 1 2 0
    assert state.counts.tolist() == [3, 2, 2]
    for found, projection in ((state.keys, learner.to_keys), (state.values, learner.to_values)):
        expected = literal_positions(learner, episode.support.images[order], projection.weight)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_keys_of_zeros_attend_to_everything_alike() -> None:
    """Then the aligned value is the class's mean value at every position: ProtoNets, position by position."""
    learner, episode = build(), tiny_episode(n=7, way=3)
    nn.init.zeros_(learner.to_keys.weight)
    (batch,) = episode.query
    state = learner.adapt(episode.support, FullEncode(4))
    values = literal_positions(learner, episode.support.images, learner.to_values.weight)
    means = torch.stack([values[episode.support.labels == c].mean((0, 1)) for c in range(3)])
    v = literal_positions(learner, batch.images, learner.to_values.weight)
    expected = -(v.unsqueeze(2) - means).square().sum(3).mean(1)
    torch.testing.assert_close(learner.classify(state, batch.images), expected, rtol=1e-10, atol=1e-12)


def test_large_keys_attend_to_the_same_image_alone() -> None:
    """A query that is a support image then finds its own values, so that its distance from its class is 0."""
    learner, episode = build(key_features=5), tiny_episode(n=4, way=2)
    learner.to_keys.weight.data = 1e4 * torch.eye(5).double().view(5, 5, 1, 1)
    state = learner.adapt(episode.support, FullEncode(4))
    state = SupportPositions(state.keys / state.keys.norm(dim=2, keepdim=True), state.values, state.counts)
    logits = learner.classify(state, episode.support.images)
    distances = -logits.gather(1, episode.support.labels.unsqueeze(1)).squeeze(1)
    assert float(distances.detach().max()) < 1e-10
    assert float(-logits.detach().amin(1).max()) > 1e-2


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.tuples(*[st.integers(1, 4)] * 5),
    scale=st.sampled_from([0.0, 1.0, 100.0]),
    data=st.integers(0, 1000),
)
def test_attention_is_a_softmax_whatever_the_sizes(sizes: tuple[int, ...], scale: float, data: int) -> None:
    m, k, positions, length, width = sizes
    generator = torch.Generator().manual_seed(data)
    shapes = ((m, positions, length), (k, positions, length), (k, positions, width))
    queries, keys, values = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    fit = torch.einsum("bpd,jmd->bpjm", queries * scale, keys) / length**0.5
    expected = torch.einsum("bpn,nd->bpd", fit.flatten(2).softmax(2), values.flatten(0, 1))
    torch.testing.assert_close(attend(queries * scale, keys, values), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("estimator", [Exact, Lite, LiteStratified, LiteImportance])
@pytest.mark.parametrize(("chunk", "frames"), [(1, 1), (4, 1), (2, 2)])
def test_with_every_row_all_estimators_give_the_full_gradient(estimator: Any, chunk: int, frames: int) -> None:
    learner, episode = build(), clip_episode(N, frames, m=7)
    full = gradient(learner, episode, Full(0, 100))
    for batch_size in (2, 100):
        assert relative(gradient(learner, episode, estimator(N, chunk), batch_size), full) < 1e-10


@pytest.mark.parametrize("frames", [1, 2])
def test_the_mean_of_lite_over_all_draws_is_the_full_gradient(frames: int) -> None:
    """The softmax is not linear in a row, but with exact values the gradient is a sum over rows all the same."""
    learner, episode = build(), clip_episode(N, frames)
    full = gradient(learner, episode, Full(0, 100))
    members = [gradient(learner, episode, Scripted((rows,), N)) for rows in subsets(N, H)]
    assert len(members) == 10
    assert min(relative(member, full) for member in members) > 1e-2
    assert relative(torch.stack(members).mean(0), full) < 1e-10
    drawn = gradient(learner, episode, Lite(H, 100))
    assert min(relative(drawn, member) for member in members) < 1e-12


def test_the_mean_of_importance_draws_is_the_full_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every single row, with its probability."""
    learner, episode = build(), tiny_episode(n=N)
    full = gradient(learner, episode, Full(0, 100))
    rows, probabilities = iter(range(N)), []

    def scripted(sizes: Tensor, labels: Tensor, way: int, h: int, *_: Any) -> Rows:
        row, chances = next(rows), inclusion_probabilities(sizes, h)
        probabilities.append(float(chances[row]))
        return Rows(torch.tensor([row]), 1 / chances[[row]])

    monkeypatch.setattr(encoding, "draw_importance", scripted)
    members = [gradient(learner, episode, LiteImportance(1, 2)) for _ in range(N)]
    assert sum(probabilities) == pytest.approx(1)
    assert max(probabilities) > 1.2 / N  # they are not all alike
    total = sum(p * member for p, member in zip(probabilities, members, strict=True))
    assert isinstance(total, Tensor)
    assert relative(total, full) < 1e-10


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_memory_does_not_hold_the_attention(device: str) -> None:
    """Forward and backward of a query batch grow with the support set's positions, not with those times the query's."""
    m, positions, length, few, many = 16, 49, 8, 2, 34
    network = MapNetwork()
    learner = CrossTransformers(Backbone("maps", network, SIDE), key_features=length, value_features=length).to(device)
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device).requires_grad_()

    def peak(k: int) -> int:
        counts = torch.full((3,), k, device=device)
        sides = [numbers(3 * k, positions, length) for _ in range(2)]
        state, features = SupportPositions(sides[0], sides[1], counts), numbers(m, positions * 2 * length)

        def work() -> None:
            torch.autograd.backward(learner.logits(state, features).sum())

        return measure_peak(work, torch.device(device)).tensors

    one_image = positions * 2 * length * 4
    growth = (peak(many) - peak(few)) / (many - few)
    assert growth < 3 * 6 * one_image  # gradients of three classes and working copies, a few of each
    with sdpa_kernel(SDPBackend.MATH):
        held = (peak(many) - peak(few)) / (many - few)
    assert held > 3 * m * positions * positions * 4 > 10 * growth


def test_networks_in_bfloat16_leave_the_comparison_in_float32() -> None:
    learner, episode = build().float().requires_grad_(False), tiny_episode(n=7, way=3)
    (batch,) = episode.query
    plain = learner.classify(learner.adapt(episode.support, FullEncode(4)), batch.images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        state = learner.adapt(episode.support, FullEncode(4))
        found = learner.classify(state, batch.images)
    assert {state.keys.dtype, state.values.dtype, found.dtype} == {torch.float32}
    assert 0 < relative(found, plain) < 0.1


def test_defaults_are_the_published_lengths_without_bias() -> None:
    learner = CrossTransformers(conv4("conv4", image_size=32))
    for projection in (learner.to_keys, learner.to_values):
        assert projection.weight.shape == (128, 64, 1, 1)
        assert projection.bias is None
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert learner.features(None, images).shape == (2, 2 * 2 * 256)  # type: ignore[arg-type]  # unused


def test_everything_is_meta_trained_on_fixed_batch_statistics() -> None:
    learner = build()
    assert all(p.requires_grad for p in learner.parameters())
    found = gradient(learner, tiny_episode(n=N), Full(0, 100))
    assert int((found != 0).sum()) > 0.9 * len(found)
    assert {layer.training for layer in learner.modules() if isinstance(layer, nn.BatchNorm2d)} == {False}


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("length", [0, -3])
def test_a_length_below_one_is_refused(name: str, length: int) -> None:
    with pytest.raises(UsageError, match=rf"^-P {name}={length} is not usable: .*the paper's is 128\.$"):
        build(**{name: length})


def test_a_backbone_without_maps_is_refused_when_the_learner_is_built() -> None:
    with pytest.raises(UsageError, match=r"^Backbone tiny gives no feature maps .*choose a convolutional network"):
        CrossTransformers(tiny_backbone())
