"""SUR against a literal implementation: concatenated features, prototypes of those, Adadelta written out."""

from __future__ import annotations

import copy
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

from lite_bench.baselines.sur import SUR, Comparison
from lite_bench.harness.assembly import build_backbone
from lite_bench.harness.checks import check_learner
from lite_bench.harness.clips import ItemEncode, classify
from lite_bench.harness.core import Support
from lite_bench.harness.errors import DivergedError, UsageError, WeightsError
from lite_bench.models.encoding import FullEncode
from tests.models.toys import build, clip_episode, tiny_backbone, tiny_episode

EPISODE = tiny_episode(n=9, way=3, m=7)


def write_weights(network: nn.Module, path: Path, prefix: str = "") -> None:
    save_file({f"{prefix}{key}": value.contiguous() for key, value in network.state_dict().items()}, path)


def saved(folder: Path, seeds: range, prefix: str = "") -> str:
    """Write the weights of one tiny network per seed; gives the option that names them."""
    names = []
    for seed in seeds:
        network = tiny_backbone(seed=seed).network
        path = folder / f"{seed}.safetensors"
        write_weights(network, path, prefix)
        names.append(str(path))
    return ",".join(names)


def literal_units(extractors: list[Any], items: Tensor) -> list[Tensor]:
    """Give the features of items, of a clip the mean over its frames, divided by their lengths."""
    units = []
    for extractor in extractors:
        if items.ndim == 4:
            features = extractor(items)
        else:
            features = torch.stack([extractor(clip).mean(0) for clip in items])
        units.append(features / features.norm(dim=1, keepdim=True))
    return units


def literal_logits(units: list[Tensor], queries: list[Tensor], labels: Tensor, way: int, scores: Tensor) -> Tensor:
    """Concatenate the weighted features, and compare them with the class means of the same."""
    weights = 1 / (1 + (-scores).exp())
    support = torch.cat([s * f for s, f in zip(weights, units, strict=True)], 1)
    query = torch.cat([s * f for s, f in zip(weights, queries, strict=True)], 1)
    prototypes = torch.stack([support[labels == c].mean(0) for c in range(way)])
    return 10 * cosine_similarity(query.unsqueeze(1), prototypes, dim=2)


def literal(extractors: list[Any], support: Support, queries: Tensor, steps: int, rate: float) -> tuple[Tensor, Tensor]:
    """Fit by Adadelta (Zeiler 2012, Algorithm 1, decay 0.9, constant 1e-6); gives lambda and the query logits."""
    units, decay, constant = literal_units(extractors, support.images), 0.9, 1e-6
    scores = torch.zeros(len(extractors), dtype=torch.float64)
    squares, changes = torch.zeros_like(scores), torch.zeros_like(scores)
    for _ in range(steps):
        scores.requires_grad_()
        loss = cross_entropy(literal_logits(units, units, support.labels, support.way, scores), support.labels)
        (slope,) = torch.autograd.grad(loss, scores)
        squares = decay * squares + (1 - decay) * slope**2
        change = -((changes + constant) / (squares + constant)).sqrt() * slope
        changes = decay * changes + (1 - decay) * change**2
        scores = scores.detach() + rate / support.way * change
    found = literal_logits(units, literal_units(extractors, queries), support.labels, support.way, scores)
    return scores, found.detach()


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("options", [{}, {"steps": 3, "inner_lr": 100.0}, {"steps": 0}])
def test_weights_and_logits_are_those_of_the_method(tmp_path: Path, frames: int, options: dict[str, Any]) -> None:
    learner = build(SUR, extractors=saved(tmp_path, range(1, 4)), **options)
    episode = clip_episode(9, frames, way=3, m=7)
    (batch,) = episode.query
    state = learner.adapt(episode.support, ItemEncode(FullEncode(4)))
    found = classify(learner, state, batch.images)
    extractors = [tiny_backbone(seed=seed).double().eval() for seed in range(1, 4)]
    steps, rate = options.get("steps", 40), options.get("inner_lr", 3000.0)
    scores, logits = literal(extractors, episode.support, batch.images, steps, rate)
    assert (float(scores.std()) > 0.1) == (steps > 0)  # there is something to select
    torch.testing.assert_close(state.scores, scores, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found, logits, rtol=1e-8, atol=1e-8)


def test_defaults_are_the_published_settings() -> None:
    learner = build(SUR)
    assert (learner.steps, learner.inner_lr, learner.logit_scale) == (40, 3000, 10)


def test_one_extractor_is_a_cosine_classifier_of_nearest_means() -> None:
    learner = build(SUR)
    (batch,) = EPISODE.query
    state = learner.adapt(EPISODE.support, FullEncode(4))
    units, queries = (literal_units([tiny_backbone().double().eval()], x.images)[0] for x in (EPISODE.support, batch))
    means = torch.stack([units[EPISODE.support.labels == c].mean(0) for c in range(3)])
    expected = 10 * queries @ (means / means.norm(dim=1, keepdim=True)).T
    torch.testing.assert_close(learner.classify(state, batch.images), expected.detach(), rtol=1e-10, atol=1e-10)


def test_an_extractor_that_tells_nothing_apart_loses(tmp_path: Path) -> None:
    """A network whose last layer is a constant: only the other one can lower the loss."""
    names = saved(tmp_path, range(2)).split(",")
    blind = tiny_backbone(seed=2).network
    last: Any = blind.blocks[1]  # type: ignore[index]  # a Sequential
    nn.init.zeros_(last[0].weight)
    nn.init.ones_(last[0].bias)
    write_weights(blind, tmp_path / "blind.safetensors")
    learner = build(SUR, extractors=",".join([names[0], str(tmp_path / "blind.safetensors"), names[1]]))
    scores = learner.adapt(EPISODE.support, FullEncode(4)).scores
    assert scores.argmin() == 1
    assert scores[1] < 0


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.floats(-30, 300), min_size=1, max_size=4),
    shift=st.floats(-1000, 0),
    seed=st.integers(0, 1000),
    dead=st.booleans(),
)
def test_cosines_are_those_of_the_weighted_concatenation(
    scores: list[float], shift: float, seed: int, dead: bool
) -> None:
    """Also where an extractor sees nothing in an image; and, where a sigmoid vanishes, they depend on shares alone."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(5, len(scores), 3, generator=generator, dtype=torch.float64)
    if dead and len(scores) > 1:
        features[0, int(torch.tensor(scores).argmin())] = 0
    means = torch.randn(2, len(scores), 3, generator=generator, dtype=torch.float64)
    weights = torch.tensor(scores, dtype=torch.float64)
    s = weights.sigmoid().view(1, -1, 1)
    expected = cosine_similarity((s * features).flatten(1).unsqueeze(1), (s * means).flatten(1), dim=2, eps=1e-30)
    comparison = Comparison.of(features, means)
    torch.testing.assert_close(comparison.cosines(weights), expected, rtol=1e-6, atol=1e-6)
    low = weights.clamp_max(0) - 700 + shift  # e^low is 0 even in float64; sigmoid(x) is e^x there
    near = weights.clamp_max(0) - 40
    torch.testing.assert_close(comparison.cosines(low), comparison.cosines(near), rtol=1e-6, atol=1e-6)


def test_a_feature_of_zeros_has_the_cosine_zero_and_no_gradient() -> None:
    comparison = Comparison.of(torch.zeros(2, 2, 3), torch.zeros(4, 2, 3))
    scores = torch.zeros(2, requires_grad=True)
    cosines = comparison.cosines(scores)
    assert not cosines.detach().any()
    (slope,) = torch.autograd.grad(cosines.sum(), scores)
    assert not slope.any()


def test_networks_run_once_over_the_support_set_and_stay_frozen(tmp_path: Path) -> None:
    learner = build(SUR, extractors=saved(tmp_path, range(3)))
    assert not any(p.requires_grad for p in learner.parameters())
    assert not any(module.training for module in learner.extractors.modules())
    seen = []
    for extractor in learner.extractors:
        extractor.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    before = copy.deepcopy(learner.state_dict())
    with torch.no_grad():
        state = learner.adapt(EPISODE.support, FullEncode(100))
    assert seen == [9, 9, 9]
    assert all(torch.equal(before[key], value) for key, value in learner.state_dict().items())
    assert not any(getattr(state, field.name).requires_grad for field in fields(state))


def test_with_several_extractors_it_keeps_the_contract(tmp_path: Path) -> None:
    names = []
    for seed in range(2):
        backbone: Any = build_backbone("conv4", image_size=16, pretrained=False, seed=seed)
        names.append(str(tmp_path / f"{seed}.safetensors"))
        write_weights(backbone.network, tmp_path / f"{seed}.safetensors")
    network: Any = build_backbone("conv4", image_size=16, pretrained=False)
    check_learner(SUR(network, extractors=",".join(names)), image_size=16)


@pytest.mark.parametrize("prefix", ["", "backbone.network."])
def test_the_listed_weights_replace_the_backbones_own(tmp_path: Path, prefix: str) -> None:
    """Bare networks, and checkpoints of learners that hold one."""
    learner = SUR(tiny_backbone(seed=0), extractors=saved(tmp_path, range(1, 4), prefix).replace(",", " , "))
    assert len(learner.extractors) == 3
    for seed, extractor in enumerate(learner.extractors, 1):
        expected = tiny_backbone(seed=seed).state_dict()
        assert all(torch.equal(expected[key], value) for key, value in extractor.state_dict().items())


def test_without_a_list_the_backbone_is_the_only_extractor() -> None:
    backbone = tiny_backbone()
    assert list(SUR(backbone, extractors=" ").extractors) == [backbone]


def test_an_empty_entry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^-P extractors=.*, has an empty entry; separate .* by single commas\.$"):
        SUR(tiny_backbone(), extractors=saved(tmp_path, range(2)) + ",")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    names = saved(tmp_path, range(1)) + f",{tmp_path / 'other.safetensors'}"
    with pytest.raises(
        WeightsError, match=r"^-P extractors names .*other\.safetensors, which is not there; .*tiny networks"
    ):
        SUR(tiny_backbone(), extractors=names)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"0\.safetensors does not fit backbone tiny: .* of another shape"):
        SUR(tiny_backbone(features=6), extractors=saved(tmp_path, range(1)))


def test_a_loss_that_is_not_finite_is_reported(tmp_path: Path) -> None:
    learner = build(SUR, extractors=saved(tmp_path, range(2)), logit_scale=float("inf"))
    with pytest.raises(DivergedError, match=r"step 1 of 40"):
        learner.adapt(EPISODE.support, FullEncode(4))
