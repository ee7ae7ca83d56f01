"""The Mahalanobis head against the literal formulas: dense matrices, an explicit inverse, float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lite_bench.models.class_statistics import class_counts, class_means
from lite_bench.models.mahalanobis import fit_class_gaussians, mahalanobis_squared
from lite_bench.models.protonets import squared_distances

CASES = {
    "equal shots": [0, 1, 2] * 4,
    "unequal shots": [0, 0, 0, 0, 0, 1, 1, 2, 3, 3, 3],
    "some one-shot": [0, 1, 1, 1, 2, 3, 3],
    "all one-shot": [0, 1, 2, 3, 4],
    "shuffled": [2, 0, 1, 1, 2, 0, 0, 1],
    "one class": [0, 0, 0],
    "one image": [0],
}


def problem(
    labels: list[int], features: int, queries: int = 4, seed: int = 0, scale: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.tensor(labels)
    centres = torch.randn(int(y.max()) + 1, features, generator=generator, dtype=torch.float64)
    x = scale * (centres[y] + torch.randn(len(y), features, generator=generator, dtype=torch.float64) + 0.5)
    query = scale * torch.randn(queries, features, generator=generator, dtype=torch.float64)
    return x, y, query


def released_covariance(rows: Tensor) -> Tensor:
    """The released codes' routine: a matrix of one row is taken for a vector of D observations of one variable."""
    examples = rows.T
    if examples.shape[1] == 1:
        examples = examples.T  # one variable
    deviations = examples - examples.mean(1, keepdim=True)
    return (deviations @ deviations.T / (examples.shape[1] - 1)).squeeze()


def covariance(rows: Tensor) -> Tensor:
    if len(rows) == 1:
        return torch.zeros(rows.shape[1], rows.shape[1], dtype=rows.dtype)
    deviations = rows - rows.mean(0)
    return deviations.T @ deviations / (len(rows) - 1)


def dense_matrices(
    x: Tensor, y: Tensor, beta: float = 1.0, of_class: Callable[[Tensor], Tensor] = covariance
) -> list[Tensor]:
    matrices, eye = [], torch.eye(x.shape[1], dtype=x.dtype)
    for c in range(int(y.max()) + 1):
        own = x[y == c]
        weight = len(own) / (len(own) + 1)
        matrices.append(weight * of_class(own) + (1 - weight) * covariance(x) + beta * eye)
    return matrices


def dense_distances(
    x: Tensor, y: Tensor, query: Tensor, beta: float = 1.0, of_class: Callable[[Tensor], Tensor] = covariance
) -> Tensor:
    columns = []
    for c, matrix in enumerate(dense_matrices(x, y, beta, of_class)):
        difference = query - x[y == c].mean(0)
        columns.append(torch.einsum("md,de,me->m", difference, torch.linalg.inv(matrix), difference))
    return torch.stack(columns, 1)


def distances(x: Tensor, y: Tensor, query: Tensor, beta: float = 1.0, compat: bool = False) -> Tensor:
    return mahalanobis_squared(fit_class_gaussians(x, y, int(y.max()) + 1, beta, compat), query)


@pytest.mark.parametrize("labels", CASES.values(), ids=CASES)
@pytest.mark.parametrize(("features", "woodbury"), [(40, True), (3, False)])
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_both_routes_equal_the_dense_formula(labels: list[int], features: int, woodbury: bool, beta: float) -> None:
    x, y, query = problem(labels, features)
    way = int(y.max()) + 1
    woodbury = len(labels) + way < features
    assert (len(fit_class_gaussians(x, y, way, beta).rows) > 0) == woodbury
    expected = dense_distances(x, y, query, beta)
    torch.testing.assert_close(distances(x, y, query, beta), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("labels", CASES.values(), ids=CASES)
@pytest.mark.parametrize("features", [40, 3])
def test_the_compatible_one_shot_covariance_is_the_released_broadcast(labels: list[int], features: int) -> None:
    x, y, query = problem(labels, features)
    expected = dense_distances(x, y, query, of_class=released_covariance)
    torch.testing.assert_close(distances(x, y, query, compat=True), expected, rtol=1e-10, atol=1e-10)
    one_shot = int(torch.bincount(y).min()) == 1
    assert torch.allclose(distances(x, y, query), expected) != one_shot


@pytest.mark.parametrize("labels", CASES.values(), ids=CASES)
@pytest.mark.parametrize("features", [40, 3])
@pytest.mark.parametrize("compat", [False, True])
def test_gradients_are_finite_and_those_of_the_dense_formula(labels: list[int], features: int, compat: bool) -> None:
    x, y, query = problem(labels, features)
    x.requires_grad_()
    query.requires_grad_()
    weights = torch.randn(len(query), int(y.max()) + 1, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
    ours = torch.autograd.grad((distances(x, y, query, compat=compat) * weights).sum(), [x, query])
    of_class = released_covariance if compat else covariance
    dense = torch.autograd.grad((dense_distances(x, y, query, of_class=of_class) * weights).sum(), [x, query])
    for a, b in zip(ours, dense, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_a_one_shot_class_of_equal_entries_has_finite_compatible_gradients() -> None:
    x = torch.ones(2, 20, dtype=torch.float64, requires_grad=True)
    query = torch.randn(3, 20, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(distances(x, torch.tensor([0, 1]), query, compat=True).sum(), x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("labels", [[i % 10 for i in range(100)], [0] * 55 + [1] * 40 + [2, 3, 4, 5, 6]])
def test_float32_is_accurate_at_the_size_of_efficientnet(labels: list[int], scale: float) -> None:
    """D = 1280, N = 100; support images as queries are the worst case of Woodbury's difference of large numbers."""
    x, y, query = problem(labels, 1280, scale=scale)
    query = torch.cat([query, x[:20], x[:20] + 0.1 * scale * query[:1]])
    expected = distances(x, y, query)
    found = distances(x.float(), y, query.float()).double()
    assert ((found - expected).abs().max() / expected.max()) < 3e-6
    inverse = dense_distances(x.float(), y, query.float()).double()
    assert (found - expected).abs().max() < 3 * (inverse - expected).abs().max()  # than inverting in float32


@pytest.mark.parametrize("labels", CASES.values(), ids=CASES)
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_covariances_are_symmetric_with_eigenvalues_of_at_least_beta(labels: list[int], beta: float) -> None:
    x, y, _ = problem(labels, 6)
    gaussians = fit_class_gaussians(x, y, int(y.max()) + 1, beta)
    if len(gaussians.rows):  # Woodbury: Q_c = beta I + V^T diag(s_c)^2 V
        scaled = gaussians.rows * gaussians.scales.unsqueeze(2)
        matrices = scaled.mT @ scaled + beta * torch.eye(6, dtype=x.dtype)
    else:
        matrices = gaussians.factors @ gaussians.factors.mT
    torch.testing.assert_close(matrices, torch.stack(dense_matrices(x, y, beta)), rtol=1e-10, atol=1e-10)
    assert torch.linalg.eigvalsh(matrices).min() > beta * (1 - 1e-9)


@settings(max_examples=25, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=4, max_size=12),
    features=st.integers(1, 30),
    seed=st.integers(0, 1000),
    compat=st.booleans(),
)
def test_order_shift_and_route_never_matter(labels: list[int], features: int, seed: int, compat: bool) -> None:
    present = sorted(set(labels))
    x, y, query = problem([present.index(c) for c in labels], features + 1, seed=seed)
    of_class = released_covariance if compat else covariance
    reference = dense_distances(x, y, query, of_class=of_class)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    shuffled = distances(x[order], y[order], query, compat=compat)
    torch.testing.assert_close(shuffled, reference, rtol=1e-8, atol=1e-8)
    shift = torch.full((1, features + 1), 7.5, dtype=x.dtype)
    torch.testing.assert_close(distances(x + shift, y, query + shift, compat=compat), reference, rtol=1e-8, atol=1e-8)


def test_without_spread_the_distances_are_those_of_protonets() -> None:
    """Only classes that coincide, all images alike, make every covariance zero; then Q_c is the identity."""
    x = torch.full((6, 5), 2.0, dtype=torch.float64)
    y, query = torch.tensor([0, 0, 1, 1, 1, 2]), torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(distances(x, y, query), squared_distances(query, class_means(x, y, 3)))
    wide = torch.full((6, 50), 2.0, dtype=torch.float64)
    query = torch.randn(4, 50, dtype=torch.float64)
    torch.testing.assert_close(distances(wide, y, query), squared_distances(query, class_means(wide, y, 3)))


def test_a_large_beta_approaches_scaled_squared_distances() -> None:
    x, y, query = problem(CASES["unequal shots"], 5)
    expected = squared_distances(query, class_means(x, y, 4))
    torch.testing.assert_close(1e9 * distances(x, y, query, beta=1e9), expected, rtol=1e-6, atol=1e-6)


def test_class_statistics() -> None:
    x, y, _ = problem(CASES["unequal shots"], 5)
    assert class_counts(y, 6).tolist() == [5, 2, 1, 3, 0, 0]
    expected = torch.stack([x[y == c].mean(0) for c in range(4)])
    torch.testing.assert_close(class_means(x, y, 4), expected)
