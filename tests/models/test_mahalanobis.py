"""The Mahalanobis head against the literal formulas: dense matrices, an explicit inverse, float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lite_bench.models.class_statistics import class_counts, class_means
from lite_bench.models.mahalanobis import (
    CholeskyGaussians,
    InverseGaussians,
    Solver,
    WoodburyGaussians,
    cheaper_solver,
    fit_class_gaussians,
    mahalanobis_squared,
)
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


def distances(
    x: Tensor, y: Tensor, query: Tensor, beta: float = 1.0, compat: bool = False, solver: Solver = "auto"
) -> Tensor:
    return mahalanobis_squared(fit_class_gaussians(x, y, int(y.max()) + 1, beta, compat, solver), query)


SOLVERS = {"woodbury": WoodburyGaussians, "cholesky": CholeskyGaussians, "inverse": InverseGaussians}
EVERY_SOLVER = pytest.mark.parametrize("solver", SOLVERS)


@EVERY_SOLVER
@pytest.mark.parametrize("labels", CASES.values(), ids=CASES)
@pytest.mark.parametrize("features", [40, 3])
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_all_routes_equal_the_dense_formula(labels: list[int], features: int, beta: float, solver: Solver) -> None:
    x, y, query = problem(labels, features)
    assert type(fit_class_gaussians(x, y, int(y.max()) + 1, beta, solver=solver)) is SOLVERS[solver]
    expected = dense_distances(x, y, query, beta)
    torch.testing.assert_close(distances(x, y, query, beta, solver=solver), expected, rtol=1e-10, atol=1e-10)


@EVERY_SOLVER
@pytest.mark.parametrize("labels", CASES.values(), ids=CASES)
@pytest.mark.parametrize("features", [40, 3])
def test_the_compatible_one_shot_covariance_is_the_released_broadcast(
    labels: list[int], features: int, solver: Solver
) -> None:
    x, y, query = problem(labels, features)
    expected = dense_distances(x, y, query, of_class=released_covariance)
    torch.testing.assert_close(distances(x, y, query, compat=True, solver=solver), expected, rtol=1e-10, atol=1e-10)
    one_shot = int(torch.bincount(y).min()) == 1
    assert torch.allclose(distances(x, y, query), expected) != one_shot


@EVERY_SOLVER
@pytest.mark.parametrize("labels", CASES.values(), ids=CASES)
@pytest.mark.parametrize("features", [40, 3])
@pytest.mark.parametrize("compat", [False, True])
def test_gradients_are_finite_and_those_of_the_dense_formula(
    labels: list[int], features: int, compat: bool, solver: Solver
) -> None:
    x, y, query = problem(labels, features)
    x.requires_grad_()
    query.requires_grad_()
    weights = torch.randn(len(query), int(y.max()) + 1, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
    ours = torch.autograd.grad((distances(x, y, query, compat=compat, solver=solver) * weights).sum(), [x, query])
    of_class = released_covariance if compat else covariance
    dense = torch.autograd.grad((dense_distances(x, y, query, of_class=of_class) * weights).sum(), [x, query])
    for a, b in zip(ours, dense, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@EVERY_SOLVER
def test_a_one_shot_class_of_equal_entries_has_finite_compatible_gradients(solver: Solver) -> None:
    x = torch.ones(2, 20, dtype=torch.float64, requires_grad=True)
    query = torch.randn(3, 20, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(distances(x, torch.tensor([0, 1]), query, compat=True, solver=solver).sum(), x)
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


@EVERY_SOLVER
@pytest.mark.parametrize("labels", CASES.values(), ids=CASES)
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_covariances_are_symmetric_with_eigenvalues_of_at_least_beta(
    labels: list[int], beta: float, solver: Solver
) -> None:
    x, y, _ = problem(labels, 6)
    gaussians = fit_class_gaussians(x, y, int(y.max()) + 1, beta, solver=solver)
    if isinstance(gaussians, WoodburyGaussians):  # Q_c = beta I + V^T diag(s_c)^2 V
        scaled = gaussians.rows * gaussians.scales.unsqueeze(2)
        matrices = scaled.mT @ scaled + beta * torch.eye(6, dtype=x.dtype)
        torch.testing.assert_close(gaussians.projected, gaussians.means @ gaussians.rows.T)
    elif isinstance(gaussians, InverseGaussians):
        matrices = torch.linalg.inv(gaussians.inverses)
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
    solver=st.sampled_from(["auto", *SOLVERS]),
)
def test_order_shift_and_route_never_matter(
    labels: list[int], features: int, seed: int, compat: bool, solver: Solver
) -> None:
    present = sorted(set(labels))
    x, y, query = problem([present.index(c) for c in labels], features + 1, seed=seed)
    of_class = released_covariance if compat else covariance
    reference = dense_distances(x, y, query, of_class=of_class)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    shuffled = distances(x[order], y[order], query, compat=compat, solver=solver)
    torch.testing.assert_close(shuffled, reference, rtol=1e-8, atol=1e-8)
    shift = torch.full((1, features + 1), 7.5, dtype=x.dtype)
    shifted = distances(x + shift, y, query + shift, compat=compat, solver=solver)
    torch.testing.assert_close(shifted, reference, rtol=1e-8, atol=1e-8)


def products(n: int) -> tuple[int, int]:
    """Count by loops the products of a Cholesky factorisation of size n and of a triangular solve; divisions are in."""
    factorisation = sum(k + 1 for column in range(n) for k in [column] * (n - column))
    solve = sum(row + 1 for row in range(n))
    return factorisation, solve


@pytest.mark.parametrize("n", [1, 2, 7, 40, 300])
def test_the_counts_of_factorisation_and_solve_are_right_to_leading_order(n: int) -> None:
    factorisation, solve = products(n)
    assert solve == n * (n + 1) // 2
    assert n**3 / 6 < factorisation <= n**3 / 6 + n**2


def multiplications(solver: Solver, n: int, way: int, width: int) -> float:
    """Go through the steps of a route, with ``n`` queries; elementwise products are left out."""
    rows = n + way
    size = rows if solver == "woodbury" else width
    each_class = sum((column + 1) * (size - column) for column in range(size)) + n * size * (size + 1) // 2
    if solver == "woodbury":
        matrices = rows * width * rows  # Gram
        matrices += way * width * rows + n * width * rows  # means and queries in row space
    else:
        matrices = width * n * width + width * way * width  # total scatter, within and between
        matrices += width * n * width  # scatter of each class
    return matrices + way * each_class


@settings(max_examples=60, deadline=None)
@given(way=st.integers(2, 60), shot=st.integers(1, 30), width=st.sampled_from([64, 128, 512]))
def test_auto_takes_the_route_of_fewer_multiplications(way: int, shot: int, width: int) -> None:
    n = way * shot
    costs = {solver: multiplications(solver, n, way, width) for solver in ("woodbury", "cholesky")}
    chosen = cheaper_solver(n, way, width)
    if abs(n + way - width) > 0.03 * width:  # closer than that, terms of lower order decide
        assert costs[chosen] == min(costs.values())


def test_with_many_queries_the_routes_would_meet_earlier() -> None:
    """What the module says of the choice."""
    for way, ratio in ((5, 0.8), (50, 0.98)):
        width = 1000
        rows = next(r for r in range(1, width) if r * width + way * r * (r + 1) / 2 > way * width * (width + 1) / 2)
        assert rows / width == pytest.approx(ratio, abs=0.025)


@pytest.mark.parametrize(
    ("n", "way", "width", "expected"),
    [
        (100, 10, 1280, "woodbury"),  # 10-way 10-shot on EfficientNet-B0
        (400, 9, 1280, "woodbury"),  # ORBIT
        (337, 9, 512, "woodbury"),  # ORBIT on ResNet-18
        (592, 13, 512, "cholesky"),
        (1000, 102, 512, "cholesky"),  # VTAB
        (409, 102, 512, "woodbury"),
        (410, 102, 512, "cholesky"),
    ],
)
def test_what_auto_takes(n: int, way: int, width: int, expected: str) -> None:
    assert cheaper_solver(n, way, width) == expected
    x, y, _ = problem([i % 3 for i in range(12)], 40 if expected == "woodbury" else 6)
    assert cheaper_solver(12, 3, x.shape[1]) == expected
    assert type(fit_class_gaussians(x, y, 3)) is SOLVERS[expected]


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
