"""The classifiers of ProtoNets, CNAPs and Simple CNAPs, and their modes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, elu

from lite_bench.harness.checks import check_learner
from lite_bench.harness.core import Support
from lite_bench.harness.errors import UsageError
from lite_bench.models.backbones import conv4
from lite_bench.models.cnaps import CNAPs, HeadGenerator
from lite_bench.models.encoding import FullEncode
from lite_bench.models.estimators import Full
from lite_bench.models.normalisation import with_per_image_norms
from lite_bench.models.protonets import ProtoNets, squared_distances
from lite_bench.models.simple_cnaps import SimpleCNAPs
from tests.models.test_mahalanobis import dense_distances
from tests.models.toys import build, gradient, tiny_backbone, tiny_episode


def parts(learner: Any, n: int = 9, way: int = 3) -> tuple[Support, Tensor]:
    episode = tiny_episode(n=n, way=way)
    (batch,) = episode.query
    return episode.support, batch.images


def logits_of(learner: Any, support: Support, queries: Tensor) -> Tensor:
    values: Tensor = learner.classify(learner.adapt(support, FullEncode(4)), queries)
    return values


def means_of(learner: Any, support: Support) -> Tensor:
    features = learner.backbone(support.images)
    return torch.stack([features[support.labels == c].mean(0) for c in range(support.way)])


def test_protonets_scores_by_negative_squared_distance() -> None:
    learner = build(ProtoNets)
    support, queries = parts(learner)
    differences = learner.backbone(queries).unsqueeze(1) - means_of(learner, support).unsqueeze(0)
    torch.testing.assert_close(logits_of(learner, support, queries), -differences.square().sum(2))


def test_the_linear_form_of_protonets_gives_the_same_softmax() -> None:
    learner = build(ProtoNets)
    support, queries = parts(learner)
    means = means_of(learner, support)
    linear = nn.functional.linear(learner.backbone(queries), 2 * means, -means.square().sum(1))
    torch.testing.assert_close(linear.softmax(1), logits_of(learner, support, queries).softmax(1))


def test_squared_distances_equal_cdist() -> None:
    a, b = torch.randn(4, 7, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64)
    torch.testing.assert_close(squared_distances(a, b), torch.cdist(a, b).square())


@pytest.mark.parametrize(("logit_scale", "scale"), [(None, 10.0), (3.0, 3.0)])
def test_cosine_protonets(logit_scale: float | None, scale: float) -> None:
    learner = build(ProtoNets, metric="cosine", logit_scale=logit_scale)
    support, queries = parts(learner)
    means = means_of(learner, support)
    expected = scale * cosine_similarity(learner.backbone(queries).unsqueeze(1), means.unsqueeze(0), dim=2)
    torch.testing.assert_close(logits_of(learner, support, queries), expected)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_scale_of_protonets_can_be_learned(metric: str) -> None:
    learner = build(ProtoNets, metric=metric, learn_scale=True, logit_scale=4.0)
    support, queries = parts(learner)
    plain = build(ProtoNets, metric=metric, logit_scale=1.0)
    found = logits_of(learner, support, queries)
    torch.testing.assert_close(found, 4 * logits_of(plain, support, queries))
    (gradient,) = torch.autograd.grad(found[0, 0], learner.logit_scale)
    assert float(gradient) == pytest.approx(float(found[0, 0].detach()) / 4)
    assert not list(dict(plain.named_parameters()).keys() & {"logit_scale"})


def batch_norm_modes(module: nn.Module) -> set[bool]:
    return {m.training for m in module.modules() if isinstance(m, nn.BatchNorm2d)}


def test_protonets_uses_fixed_statistics_unless_told() -> None:
    fixed, batch = ProtoNets(tiny_backbone()), ProtoNets(tiny_backbone(), batch_statistics=True)
    for mode in (True, False):
        assert fixed.train(mode).training is mode
        assert batch_norm_modes(fixed) == {False}
        assert batch_norm_modes(batch.train(mode)) == {mode}
    assert all(p.requires_grad for p in fixed.parameters())


@pytest.mark.parametrize("factory", [CNAPs, SimpleCNAPs])
def test_the_body_of_the_cnaps_family_is_frozen_in_evaluation_mode(factory: Any) -> None:
    learner = factory(tiny_backbone())
    for mode in (True, False):
        assert learner.train(mode).training is mode
        assert not any(module.training for module in learner.body.backbone.modules())
    assert not any(p.requires_grad for p in learner.body.backbone.parameters())
    assert all(p.requires_grad for name, p in learner.named_parameters() if ".backbone." not in name)


def test_the_classifier_generator_is_three_elu_layers_and_a_residual() -> None:
    torch.manual_seed(0)
    generator: Any = HeadGenerator(5).double()
    means = torch.randn(3, 5, dtype=torch.float64)

    def network(parts: Any, values: Tensor) -> Tensor:
        first, second, third = parts[0], parts[2], parts[4]
        hidden = elu(values @ first.weight.T + first.bias)
        hidden = elu(hidden @ second.weight.T + second.bias)
        result: Tensor = hidden @ third.weight.T + third.bias
        return result

    weight, bias = generator(means)
    torch.testing.assert_close(weight, network(generator.weight, means) + means)
    torch.testing.assert_close(bias, network(generator.bias, means)[:, 0])
    assert [tuple(p.shape) for p in generator.bias.parameters()] == [(1, 5), (1,), (1, 1), (1,), (1, 1), (1,)]


def test_the_classifier_generator_by_hand() -> None:
    """All weights zero but the last biases: the weight is the mean plus a constant, the bias a constant."""
    generator: Any = HeadGenerator(2)
    with torch.no_grad():
        for p in generator.parameters():
            p.zero_()
        generator.weight[4].bias.copy_(torch.tensor([0.5, -1.0]))
        generator.bias[4].bias.fill_(3.0)
        weight, bias = generator(torch.tensor([[1.0, 2.0], [0.0, 4.0]]))
    assert weight.tolist() == [[1.5, 1.0], [0.5, 3.0]]
    assert bias.tolist() == [3.0, 3.0]


def adapted_features(learner: Any, support: Support, images: Tensor) -> Tensor:
    embedding = torch.cat([learner.body.set_encoder(image) for image in torch.split(support.images, 1)]).mean(0)
    film = learner.body.generators(embedding, learner.body.backbone.network)
    features: Tensor = learner.body.backbone(images, film)
    return features


def test_cnaps_from_its_equations() -> None:
    learner = build(CNAPs)
    support, queries = parts(learner)
    features = adapted_features(learner, support, support.images)
    means = torch.stack([features[support.labels == c].mean(0) for c in range(3)])
    weight, bias = learner.head(means)
    expected = adapted_features(learner, support, queries) @ weight.T + bias
    torch.testing.assert_close(logits_of(learner, support, queries), expected)


@pytest.mark.parametrize(("beta", "scale"), [(1.0, 1.0), (0.5, 0.5)])
def test_simple_cnaps_from_its_equations(beta: float, scale: float) -> None:
    learner = build(SimpleCNAPs, beta=beta, logit_scale=scale)
    support, queries = parts(learner)
    features = adapted_features(learner, support, support.images)
    query_features = adapted_features(learner, support, queries)
    expected = -scale * dense_distances(features, support.labels, query_features, beta)
    torch.testing.assert_close(logits_of(learner, support, queries), expected)


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize(("n", "way"), [(9, 3), (3, 3), (2, 2)])
def test_every_solver_of_simple_cnaps_gives_the_same_logits_and_gradients(n: int, way: int, compat: bool) -> None:
    """The classes of the last two tasks have one image each; the tasks have more rows than features, and fewer."""
    episode = tiny_episode(n=n, way=way)
    (batch,) = episode.query
    logits, gradients = [], []
    for solver in ("auto", "woodbury", "cholesky", "inverse"):
        learner = build(SimpleCNAPs, solver=solver, compat_one_shot=compat)
        logits.append(logits_of(learner, episode.support, batch.images).detach())
        gradients.append(gradient(learner, episode, Full(0, 100)))
    assert all(bool(each.any()) for each in gradients)
    for each in logits[1:]:
        torch.testing.assert_close(each, logits[0], rtol=1e-9, atol=1e-9)
    for each in gradients[1:]:
        torch.testing.assert_close(each, gradients[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", ["woodbury", "cholesky", "inverse"])
def test_simple_cnaps_keeps_the_contract_with_every_solver(solver: Any) -> None:
    check_learner(SimpleCNAPs(tiny_backbone(), solver=solver), image_size=32)


@pytest.mark.parametrize("factory", [CNAPs, SimpleCNAPs])
def test_the_penalty_is_the_weighted_gate_energy(factory: Any) -> None:
    learner = build(factory, gate_penalty=0.25)
    gates = [p.detach() for name, p in learner.named_parameters() if name.endswith("gate")]
    expected = 0.25 * sum(float(gate.square().sum()) for gate in gates)
    assert float(learner.penalty().detach()) == pytest.approx(expected)


@pytest.mark.parametrize("factory", [CNAPs, SimpleCNAPs])
def test_images_too_small_for_the_set_encoder_are_refused(factory: Any) -> None:
    with pytest.raises(UsageError, match="at least 32 pixels"):
        factory(conv4("conv4", image_size=28))


def test_adapting_with_batch_statistics_leaves_the_learner_unchanged() -> None:
    learner = build(SimpleCNAPs, set_statistics="batch").eval()
    before = {key: value.clone() for key, value in learner.state_dict().items()}
    support, queries = parts(learner)
    logits_of(learner, support, queries)
    assert all(torch.equal(before[key], value) for key, value in learner.state_dict().items())


def test_the_head_of_a_per_image_backbone_sees_each_image_alone() -> None:
    backbone = tiny_backbone()
    with_per_image_norms(backbone.network)
    learner = ProtoNets(backbone).double().train()
    support, queries = parts(learner)
    together = logits_of(learner, support, queries)
    singly = torch.cat([logits_of(learner, support, query[None]) for query in queries])
    torch.testing.assert_close(together, singly)
