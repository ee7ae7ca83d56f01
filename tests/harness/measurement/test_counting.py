"""Counts beside closed forms and literal algorithms; hollow runs beside real ones."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils.checkpoint import checkpoint

from lite_bench.harness.assembly import build_backbone
from lite_bench.harness.core import Support
from lite_bench.harness.errors import LiteBenchError
from lite_bench.harness.measurement import arithmetic
from lite_bench.harness.measurement.counting import Count, NotCountableError, count, count_hollow, counting, hollow
from lite_bench.harness.measurement.macs import count_macs, explain_thop
from lite_bench.harness.measurement.peak import measure_peak
from lite_bench.harness.registry import ESTIMATORS, LEARNERS
from lite_bench.harness.repetition import repeated
from tests.models.toys import tiny_backbone

# Literal algorithms -------------------------------------------------------------------------------------------------


class Number:
    """A number that counts multiplications, divisions and square roots."""

    used = 0

    def __init__(self, value: float) -> None:
        self.value = value

    def __add__(self, other: Number) -> Number:
        return Number(self.value + other.value)

    def __sub__(self, other: Number) -> Number:
        return Number(self.value - other.value)

    def __mul__(self, other: Number) -> Number:
        Number.used += 1
        return Number(self.value * other.value)

    def __truediv__(self, other: Number) -> Number:
        Number.used += 1
        return Number(self.value / other.value)

    def sqrt(self) -> Number:
        Number.used += 1
        return Number(math.sqrt(self.value))


Matrix = list[list[Number]]


def numbers(matrix: Tensor) -> Matrix:
    return [[Number(value) for value in row] for row in matrix.tolist()]


def tensor(matrix: Matrix) -> Tensor:
    return torch.tensor([[number.value for number in row] for row in matrix], dtype=torch.float64)


def used(work: Callable[[], Matrix]) -> tuple[int, Tensor]:
    Number.used = 0
    result = work()
    return Number.used, tensor(result)


def cholesky(a: Matrix) -> Matrix:
    factor = [[Number(0.0)] * len(a) for _ in a]
    for i in range(len(a)):
        for j in range(i + 1):
            rest = a[i][j]
            for k in range(j):
                rest = rest - factor[i][k] * factor[j][k]
            factor[i][j] = rest.sqrt() if i == j else rest / factor[j][j]
    return factor


def forward_substitution(lower: Matrix, b: Matrix, unit: bool = False) -> Matrix:
    x = [list(row) for row in b]
    for i in range(len(lower)):
        for c in range(len(b[0])):
            for k in range(i):
                x[i][c] = x[i][c] - lower[i][k] * x[k][c]
            if not unit:
                x[i][c] = x[i][c] / lower[i][i]
    return x


def backward_substitution(upper: Matrix, b: Matrix) -> Matrix:
    turned = [list(reversed(row)) for row in reversed(upper)]
    return list(reversed(forward_substitution(turned, list(reversed(b)))))


def lu(a: Matrix) -> Matrix:
    """L and U in one matrix, without pivots."""
    a = [list(row) for row in a]
    for j in range(min(len(a), len(a[0]))):
        reciprocal = Number(1.0) / a[j][j]
        for i in range(j + 1, len(a)):
            a[i][j] = a[i][j] * reciprocal
            for k in range(j + 1, len(a[0])):
                a[i][k] = a[i][k] - a[i][j] * a[j][k]
    return a


def lu_solve(factors: Matrix, b: Matrix) -> Matrix:
    return backward_substitution(factors, forward_substitution(factors, b, unit=True))


def gauss_jordan(a: Matrix) -> Matrix:
    """The inverse, in place."""
    a, n = [list(row) for row in a], range(len(a))
    for p in n:
        pivot = a[p][p] = Number(1.0) / a[p][p]
        for j in n:
            if j != p:
                a[p][j] = a[p][j] * pivot
        for i in n:
            if i != p:
                factor = a[i][p]
                for j in n:
                    if j != p:
                        a[i][j] = a[i][j] - factor * a[p][j]
                a[i][p] = Number(0.0) - factor * pivot
    return a


def inverse_from_cholesky(lower: Matrix) -> Matrix:
    """Invert the factor, column by column below its diagonal, and multiply its transpose by it."""
    n = len(lower)
    inverse = [[Number(0.0)] * n for _ in range(n)]
    for j in range(n):
        part = [row[j:] for row in lower[j:]]
        unit = [[Number(1.0 if i == 0 else 0.0)] for i in range(n - j)]
        for i, row in enumerate(column_below(part, unit)):
            inverse[j + i][j] = row
    product = [[Number(0.0)] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            for k in range(i, n):
                product[i][j] = product[i][j] + inverse[k][i] * inverse[k][j]
            product[j][i] = product[i][j]
    return product


def column_below(lower: Matrix, unit: Matrix) -> list[Number]:
    """Solve for one column of an inverse; its first entry is a reciprocal."""
    return [row[0] for row in forward_substitution(lower, unit)]


def householder(a: Matrix) -> Matrix:
    """R of A = Q R by reflections."""
    a = [list(row) for row in a]
    m, n = len(a), len(a[0])
    for j in range(min(m - 1, n)):
        column = [a[i][j] for i in range(j, m)]
        norm = sum((x * x for x in column), Number(0.0)).sqrt()
        end = Number(-norm.value if column[0].value > 0 else norm.value)
        tau, head = (end - column[0]) / end, column[0] - end
        vector = [x / head for x in column[1:]]
        a[j][j] = end
        for k in range(j + 1, n):
            along = tau * sum((v * a[j + 1 + i][k] for i, v in enumerate(vector)), a[j][k])
            a[j][k] = a[j][k] - along
            for i, v in enumerate(vector):
                a[j + 1 + i][k] = a[j + 1 + i][k] - v * along
    return a


def spd(n: int) -> Tensor:
    a = torch.rand(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    return a @ a.T + n * torch.eye(n, dtype=torch.float64)


def backward(values: Tensor) -> None:
    values.sum().backward()  # type: ignore[no-untyped-call]  # torch


def macs(work: Callable[[], object]) -> int:
    counted = count(work)
    assert not counted.uncounted
    return counted.macs


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_factorisations_take_the_multiplications_of_the_literal_algorithm(n: int) -> None:
    a, b = spd(n), torch.rand(n, 3, dtype=torch.float64)
    lower = torch.linalg.cholesky(a)
    cases: list[tuple[Callable[[], Matrix], Callable[[], Tensor]]] = [
        (lambda: cholesky(numbers(a)), lambda: torch.linalg.cholesky(a)),
        (lambda: forward_substitution(numbers(lower), numbers(b)),
         lambda: torch.linalg.solve_triangular(lower, b, upper=False)),
        (lambda: forward_substitution(numbers(lower), numbers(b), unit=True),
         lambda: torch.linalg.solve_triangular(lower, b, upper=False, unitriangular=True)),
        (lambda: backward_substitution(numbers(lower.T), numbers(b)),
         lambda: torch.linalg.solve_triangular(lower.T, b, upper=True)),
        (lambda: lu_solve(lu(numbers(a)), numbers(b)), lambda: torch.linalg.solve(a, b)),
        (lambda: gauss_jordan(numbers(a)), lambda: torch.linalg.inv(a)),
        (lambda: backward_substitution(numbers(lower.T), forward_substitution(numbers(lower), numbers(b))),
         lambda: torch.cholesky_solve(b, lower)),
        (lambda: inverse_from_cholesky(numbers(lower)), lambda: torch.cholesky_inverse(lower)),
    ]  # fmt: skip
    for literal, ours in cases:
        multiplications, values = used(literal)
        torch.testing.assert_close(values, ours())
        assert macs(ours) == multiplications


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (3, 5), (6, 6)])
def test_lu_of_any_shape(shape: tuple[int, int]) -> None:
    a = torch.rand(shape, dtype=torch.float64) + 5 * torch.eye(*shape, dtype=torch.float64)
    multiplications, _ = used(lambda: lu(numbers(a)))
    assert macs(lambda: torch.linalg.lu_factor(a)) == multiplications
    assert macs(lambda: torch.linalg.lu_factor(a.expand(2, 3, *shape))) == 6 * multiplications


@pytest.mark.parametrize("shape", [(80, 50), (60, 60), (50, 80)])
def test_qr_takes_about_the_multiplications_of_householder(shape: tuple[int, int]) -> None:
    a = torch.rand(shape, dtype=torch.float64)
    multiplications, factor = used(lambda: householder(numbers(a)))
    torch.testing.assert_close(factor[: min(shape)].abs().triu(), torch.linalg.qr(a, "r").R.abs())
    assert macs(lambda: torch.linalg.qr(a, "r")) == pytest.approx(multiplications, rel=0.04)
    assert macs(lambda: torch.linalg.qr(a.expand(2, 3, *shape), "r")) == 6 * macs(lambda: torch.linalg.qr(a, "r"))


@pytest.mark.parametrize("shape", [(400, 250), (300, 300), (250, 400)])
def test_the_columns_of_q_take_reflections_of_unit_vectors(shape: tuple[int, int]) -> None:
    a, (m, k) = hollow(shape), (shape[0], min(shape))
    whole = count_hollow(lambda: torch.linalg.qr(a)).macs
    triangle = count_hollow(lambda: torch.linalg.qr(a, "r")).macs
    assert whole - triangle == count_hollow(lambda: torch.linalg.householder_product(hollow((m, k)), hollow((k,)))).macs
    assert whole - triangle == pytest.approx(sum(2 * (m - j) * (k - j) for j in range(k)), rel=0.01)


def test_systems_with_vectors_from_the_right_and_in_batches() -> None:
    one = spd(4)
    a = one.expand(3, 2, 4, 4).contiguous()
    system = (4**3 + 2 * 4) // 3
    assert macs(lambda: torch.linalg.solve(one, torch.rand(4, dtype=torch.float64))) == system + 16
    right = torch.rand(3, 2, 5, 4, dtype=torch.float64)
    assert macs(lambda: torch.linalg.solve(a, right, left=False)) == 6 * (system + 16 * 5)
    assert macs(lambda: torch.linalg.solve(one, right.mT)) == system + 6 * 16 * 5
    assert macs(lambda: torch.linalg.solve_triangular(a, right, upper=True, left=False)) == 6 * 10 * 5
    assert macs(lambda: torch.linalg.det(a)) == 6 * system
    assert macs(lambda: torch.cholesky_solve(right.mT, torch.linalg.cholesky(a))) == 6 * (20 + 20 * 5)


# Convolutions, products, attention ----------------------------------------------------------------------------------


def literal_convolution(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> int:
    """Count by going through all outputs, inputs and weights that belong together; padding is data."""
    images, channels = x.shape[:2]
    places = layer(x).shape[2:] if isinstance(layer, nn.Conv2d) else x.shape[2:]
    total = 0
    for _image in range(images):
        for _place in range(math.prod(places)):
            for channel in range(channels):
                group = channel // (channels // layer.groups)
                outputs = [o for o in range(layer.out_channels) if o // (layer.out_channels // layer.groups) == group]
                total += len(outputs) * math.prod(layer.kernel_size)
    return total


@given(
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 1),
    transposed=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_convolutions_and_their_gradients(
    groups: int, kernel: int, stride: int, padding: int, transposed: bool
) -> None:
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = kind(4, 8, kernel, stride=stride, padding=padding if kernel > 1 else 0, groups=groups)
    x = torch.rand(2, 4, 6, 5)
    forward = literal_convolution(layer, x)
    assert count(lambda: layer(x)) == Count({"convolution": forward})
    assert macs(lambda: layer(x).sum().backward()) == 2 * forward  # that of the weights, not of the images
    assert macs(lambda: layer(x.clone().requires_grad_()).sum().backward()) == 3 * forward
    empty = hollow(x.shape).requires_grad_()
    assert count_hollow(lambda: layer(empty).sum().backward()) == Count({"convolution": 3 * forward})


def test_convolutions_of_other_dimensions() -> None:
    line, volume = nn.Conv1d(4, 6, 3), nn.Conv3d(2, 3, 2, bias=False)
    assert macs(lambda: line(torch.rand(5, 4, 9))) == 5 * 7 * 6 * 4 * 3
    assert macs(lambda: volume(torch.rand(1, 2, 3, 4, 5))) == 2 * 3 * 4 * 3 * 2 * 8
    assert macs(lambda: nn.Conv2d(3, 2, 3, padding="same")(torch.rand(3, 4, 4))) == 16 * 2 * 3 * 9


PRODUCTS: dict[str, tuple[Callable[..., Tensor], Sequence[tuple[int, ...]], int]] = {
    "mm": (torch.mm, [(3, 4), (4, 5)], 60),
    "bmm": (torch.bmm, [(2, 3, 4), (2, 4, 5)], 120),
    "matmul": (torch.matmul, [(2, 1, 3, 4), (7, 4, 5)], 840),
    "linear": (F.linear, [(2, 3, 4), (5, 4), (5,)], 120),
    "addmm": (torch.addmm, [(3, 5), (3, 4), (4, 5)], 60),
    "baddbmm": (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 120),
    "addbmm": (torch.addbmm, [(3, 5), (2, 3, 4), (2, 4, 5)], 120),
    "mv": (torch.mv, [(3, 4), (4,)], 12),
    "addmv": (torch.addmv, [(3,), (3, 4), (4,)], 12),
    "dot": (torch.dot, [(4,), (4,)], 4),
    "addr": (torch.addr, [(3, 4), (3,), (4,)], 12),
    "einsum": (lambda a, b: torch.einsum("nkd,mkd->nmk", a, b), [(7, 4, 5), (3, 4, 5)], 420),
    "few distances": (torch.cdist, [(7, 5), (4, 5)], 140),
    "many distances": (torch.cdist, [(70, 5), (4, 5)], 70 * 4 * 7),  # by a product of rows with norms and ones
    "city blocks": (lambda a, b: torch.cdist(a, b, p=1), [(7, 5), (4, 5)], 0),
    "distances within": (F.pdist, [(7, 5)], 21 * 5),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str) -> None:
    product, shapes, expected = PRODUCTS[name]
    assert macs(lambda: product(*(torch.rand(shape) for shape in shapes))) == expected
    assert count_hollow(lambda: product(*(hollow(shape) for shape in shapes))).macs == expected


@pytest.mark.parametrize("name", ["mm", "bmm", "linear", "addmm", "baddbmm"])
def test_the_backward_of_a_product_is_two_products(name: str) -> None:
    product, shapes, expected = PRODUCTS[name]
    leaves = [torch.rand(shape, requires_grad=True) for shape in shapes]
    assert macs(lambda: backward(product(*leaves).square())) == 3 * expected


def test_backward_of_distances_takes_one_factor_for_each_difference() -> None:
    a, b = torch.rand(7, 5, requires_grad=True), torch.rand(4, 5, requires_grad=True)
    assert macs(lambda: backward(torch.cdist(a, b))) == 3 * 140


def test_attention_in_its_plain_and_fused_forms() -> None:
    query, key, value = torch.rand(2, 3, 8, 6), torch.rand(2, 3, 9, 6), torch.rand(2, 3, 9, 6)
    products = 2 * 3 * 8 * 9 * (6 + 6)
    attention: Callable[..., Tensor] = F.scaled_dot_product_attention
    assert macs(lambda: attention(query, key, value)) == products
    leaves = [x.clone().requires_grad_() for x in (query, key, value)]
    assert macs(lambda: backward(attention(*leaves))) == 3 * products
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    assert count(lambda: fused(query, key, value)) == Count({"attention": products})
    # Backward: Q K^T once more, and two products for each of the two of forward.
    scores = 2 * 3 * 8 * 9 * 6
    assert count(lambda: fused(*leaves)[0].sum().backward()) == Count({"attention": 3 * products + scores})


def test_encoder_layers_are_not_hidden_in_one_operation() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True).eval()
    expected = 5 * (4 * 8 * 8 + 2 * 8 * 16) + 2 * 5 * 5 * 8
    with torch.no_grad():
        assert macs(lambda: layer(torch.rand(1, 5, 8))) == expected
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("size", "new"), [(11, 4), (19, 8), (3, 10), (17, 6)])
def test_interpolation_takes_the_weights_that_are_not_zero(mode: str, size: int, new: int) -> None:
    reach = {"bilinear": 1.0, "bicubic": 2.0}[mode]
    lines = torch.eye(size, dtype=torch.float64).view(size, 1, 1, size)
    matrix = F.interpolate(lines, (1, new), mode=mode, antialias=True)
    assert arithmetic.taps(size, new, reach) == int((matrix.abs() > 1e-12).sum())
    x = torch.rand(2, 3, size, size, requires_grad=True)
    one = 6 * (size + new) * arithmetic.taps(size, new, reach)
    resize: Callable[[], Tensor] = lambda: F.interpolate(x, (new, new), mode=mode, antialias=True)  # noqa: E731 - short
    assert macs(resize) == one
    assert macs(lambda: backward(resize())) == 2 * one
    neighbours = {"bilinear": 4, "bicubic": 16}[mode]
    assert macs(lambda: F.interpolate(x, (new, new), mode=mode)) == neighbours * 6 * new * new


# Networks -----------------------------------------------------------------------------------------------------------


def vit_macs(side: int, patch: int, width: int, depth: int, hidden: int, extra: int) -> int:
    patches = (side // patch) ** 2
    tokens = patches + extra
    block = tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width
    return patches * 3 * patch**2 * width + depth * block


NETWORKS = {
    "resnet18": (224, 1_813_561_344),
    "tf_efficientnet_b0": (224, 384_534_752),
    "vit_small_patch16_224": (224, vit_macs(224, 16, 384, 12, 1536, 1)),
    "test_vit": (160, vit_macs(160, 16, 64, 6, 192, 1)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str) -> None:
    side, expected = NETWORKS[name]
    network = timm.create_model(name, num_classes=0).eval()
    with torch.no_grad():
        counted = count_hollow(lambda: network(hollow((3, 3, side, side))))
        assert (counted.macs, counted.uncounted) == (3 * expected, ())
        assert count_macs(network, torch.rand(1, 3, side, side)) == expected
    with torch.inference_mode():
        assert count_hollow(lambda: network(hollow((3, 3, side, side)))) == counted


def train_once(network: nn.Module, images: Tensor) -> None:
    network(images).square().sum().backward()


@pytest.mark.parametrize("name", ["resnet18", "test_efficientnet", "test_vit"])
def test_training_hollowly_is_training(name: str) -> None:
    network = timm.create_model(name, num_classes=0).train()
    side = 160 if name == "test_vit" else 64
    hollowly = count_hollow(lambda: train_once(network, hollow((4, 3, side, side))))
    assert hollowly == count(lambda: train_once(network, torch.rand(4, 3, side, side)))
    assert not hollowly.uncounted


def test_hollow_runs_leave_no_trace_and_take_no_memory() -> None:
    network = timm.create_model("resnet18", num_classes=0).train()
    network.conv1.weight.grad = torch.ones_like(network.conv1.weight)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    generator = torch.Generator().manual_seed(3)
    outside = torch.zeros(4)
    states = torch.get_rng_state(), generator.get_state()

    def work() -> None:
        images = F.dropout(hollow((1000, 3, 224, 224)))
        with torch.no_grad():
            network(images)
        train_once(network, images)
        torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9).step()
        outside.add_(hollow((4,)))
        outside.mul_(2).copy_(torch.ones(4))
        torch.rand(3), torch.randperm(5, generator=generator), torch.empty(3).normal_(generator=generator)

    peak = measure_peak(lambda: count_hollow(work), torch.device("cpu")).tensors
    assert peak < 50_000_000
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert torch.equal(network.conv1.weight.grad, torch.ones_like(network.conv1.weight))
    assert all(p.grad is None for p in network.parameters() if p is not network.conv1.weight)
    assert torch.equal(outside, torch.zeros(4))
    assert all(torch.equal(*pair) for pair in zip(states, (torch.get_rng_state(), generator.get_state()), strict=True))


def test_traces_are_removed_after_an_error_too() -> None:
    layer = nn.Linear(3, 2)

    def work() -> None:
        layer(hollow((4, 3))).sum().backward()
        assert layer.weight.grad is not None
        torch.rand(3)
        raise KeyError

    state = torch.get_rng_state()
    with pytest.raises(KeyError):
        count_hollow(work)
    assert layer.weight.grad is None
    assert torch.equal(state, torch.get_rng_state())


# Learners -----------------------------------------------------------------------------------------------------------

TASKS = {"uneven": [0, 0, 0, 0, 1, 1, 2], "many rows": [0, 1] * 10}


def learner_of(name: str) -> Any:
    factory = LEARNERS.load(name)
    steps = {option: 2 for option in inspect.signature(factory).parameters if option.endswith("steps")}
    try:
        return factory(tiny_backbone(8), **steps)
    except LiteBenchError:  # it needs more of a backbone, such as the positions of its last layer
        return factory(build_backbone("conv4", image_size=32, pretrained=False), **steps)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", LEARNERS.names())
def test_learners(name: str, task: str) -> None:
    learner = learner_of(name).eval()
    labels = torch.tensor(TASKS[task])
    way = int(labels.max()) + 1

    def work(images: Tensor, queries: Tensor) -> Tensor:
        support = Support(images, labels, way)
        encode = ESTIMATORS.load("full")(0, 4).begin(support, torch.Generator()).encode()
        logits: Tensor = learner.classify(learner.adapt(support, encode), queries)
        return logits

    shape, queries = (len(labels), 3, 32, 32), (6, 3, 32, 32)
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, s, dtype=torch.uint8, generator=generator) for s in (shape, queries)]
    with torch.no_grad():
        real = count(lambda: work(*images))
        assert count_hollow(lambda: work(hollow(shape, torch.uint8), hollow(queries, torch.uint8))) == real
    assert real.macs > 0
    assert not real.uncounted


@pytest.mark.parametrize("name", LEARNERS.names())
def test_gradients_of_learners(name: str) -> None:
    learner = learner_of(name).train()
    labels = torch.tensor(TASKS["uneven"])

    def work(images: Tensor, queries: Tensor) -> None:
        support = Support(images, labels, 3)
        draw = ESTIMATORS.load("lite")(5, 4).begin(support, torch.Generator().manual_seed(0))
        logits = learner.classify(learner.adapt(support, draw.encode()), queries)
        loss = F.cross_entropy(logits, torch.arange(6) % 3)
        if loss.requires_grad:
            backward(loss)

    images = torch.randint(0, 256, (7 + 6, 3, 32, 32), dtype=torch.uint8)
    shapes = (7, 3, 32, 32), (6, 3, 32, 32)
    hollowly = count_hollow(lambda: work(*(hollow(shape, torch.uint8) for shape in shapes)))
    assert hollowly == count(lambda: work(images[:7], images[7:]))
    assert not hollowly.uncounted


# Other ways of running ----------------------------------------------------------------------------------------------


def small_network() -> nn.Sequential:
    body = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(8, 5))


def optimised(make: Callable[..., torch.optim.Optimizer], **options: Any) -> Callable[[Tensor], None]:
    def work(images: Tensor) -> None:
        network = small_network()
        optimizer = make(network.parameters(), lr=0.1, **options)
        for _ in range(2):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images), torch.arange(len(images)) % 5)
            backward(loss)
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            assert bool(torch.isfinite(loss))

    return work


def second_order(images: Tensor) -> None:
    layer = nn.Conv2d(3, 6, 3, groups=3)
    gradient = torch.autograd.grad(layer(images).square().sum(), layer.weight, create_graph=True)[0]
    backward(gradient.square())


def in_bfloat16(images: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        small_network()(images).sum().backward()


def with_own_weights(images: Tensor) -> None:
    network = small_network()
    weights = {name: p.detach().clone().requires_grad_() for name, p in network.named_parameters()}
    functional_call(network, weights, (images,)).sum().backward()


def with_masks(images: Tensor) -> None:
    labels = torch.tensor([0, 1, 0, 2])
    features = images.flatten(1)
    for c in range(3):
        own = features[labels == c]
        own @ own.T
    features[F.one_hot(labels, 3).bool().any(1)][:, torch.argsort(labels)] @ torch.rand(4, 2)
    features.topk(3).values @ torch.rand(3, torch.bincount(labels).numel())
    images[torch.ones(4, 3, dtype=torch.bool)].flatten(1).softmax(1) @ torch.rand(64, 2)


def solved(images: Tensor) -> None:
    rows = images.flatten(1).requires_grad_()
    kernel = rows @ rows.T + torch.eye(len(rows))
    factor = torch.linalg.cholesky(kernel)
    inverse = torch.linalg.inv(kernel)
    (torch.linalg.solve(kernel, rows) + inverse @ torch.cholesky_solve(rows, factor)).sum().backward()


def in_equal_steps(images: Tensor) -> None:
    """Twenty steps and, in each, four of another kind: a count without values takes three of either."""
    weight = torch.zeros(192, 2)
    for _ in repeated(20):
        features = images.flatten(1) @ weight
        for _ in repeated(4):
            features = features @ torch.ones(2, 2)


WAYS: dict[str, Callable[[Tensor], object]] = {
    "sgd": optimised(torch.optim.SGD, momentum=0.9, nesterov=True, foreach=False),
    "sgd foreach": optimised(torch.optim.SGD, momentum=0.9, foreach=True),
    "adam": optimised(torch.optim.Adam, foreach=False),
    "adam foreach": optimised(torch.optim.Adam, foreach=True),
    "adam fused": optimised(torch.optim.Adam, fused=True),
    "adadelta": optimised(torch.optim.Adadelta, foreach=False),
    "adadelta foreach": optimised(torch.optim.Adadelta, foreach=True),
    "second order": second_order,
    "bfloat16": in_bfloat16,
    "functional call": with_own_weights,
    "checkpoint": lambda images: checkpoint(small_network(), images, use_reentrant=False).sum().backward(),
    "reentrant": lambda images: (
        checkpoint(small_network(), images.clone().requires_grad_(), use_reentrant=True).sum().backward()
    ),
    "vmap": lambda images: vmap(lambda x: x.flatten(1) @ x.flatten(1).T)(images),
    "masks": with_masks,
    "linear algebra": solved,
    "loops": in_equal_steps,
}


@pytest.mark.parametrize("name", WAYS)
def test_ways_of_running(name: str) -> None:
    work = WAYS[name]
    real = count(lambda: work(torch.rand(4, 3, 8, 8)))
    assert count_hollow(lambda: work(hollow((4, 3, 8, 8)))) == real
    assert real.macs > 0
    assert not real.uncounted


# What cannot be counted ---------------------------------------------------------------------------------------------


@torch.library.custom_op("lite_bench_tests::correlate", mutates_args=())
def correlate(a: Tensor, b: Tensor) -> Tensor:
    return a @ b.T


@correlate.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(len(a), len(b))


@torch.library.custom_op("lite_bench_tests::opaque", mutates_args=())
def opaque(a: Tensor) -> Tensor:
    return a.clone()


@pytest.mark.parametrize(
    ("work", "name"),
    [
        (torch.fft.fft, "aten._fft_r2c"),
        (torch.linalg.svd, "aten._linalg_svd"),
        (lambda x: torch.linalg.eigh(x @ x.T), "aten._linalg_eigh"),
        (lambda x: torch.cdist(x, x, p=3), "aten._cdist_forward"),
        (lambda x: correlate(x, x), "lite_bench_tests.correlate"),
        (lambda x: nn.Bilinear(6, 6, 2)(x, x), "aten._trilinear"),
    ],
)
def test_operations_without_a_rule_are_named(work: Callable[[Tensor], object], name: str) -> None:
    with torch.no_grad():
        assert count(lambda: work(torch.rand(4, 6))).uncounted == (name,)
        assert count_hollow(lambda: work(hollow((4, 6)))).uncounted == (name,)


def marked(x: Tensor) -> Tensor:
    """A mask with a place that depends on values, in a tensor that was real."""
    mask = torch.zeros(6, dtype=torch.bool)
    mask[x.argmax(0)] = True
    return x[:, mask]


@pytest.mark.parametrize(
    ("work", "name"),
    [
        (lambda x: x[x > 0], "index"),
        (marked, "index"),
        (lambda x: (x > 0).nonzero(), "nonzero"),
        (lambda x: x.unique(), "unique"),
        (lambda x: torch.equal(x, x), "equal"),
        (lambda x: torch.repeat_interleave(x.long()[0]), "repeat_interleave"),
        (lambda x: x.resize_(70_000), "resize"),
        (opaque, "opaque"),
    ],
)
def test_what_depends_on_values_is_refused(work: Callable[[Tensor], object], name: str) -> None:
    with pytest.raises(NotCountableError, match=name) as caught:
        count_hollow(lambda: work(hollow((4, 6))))
    assert name in caught.value.operation
    assert str(caught.value).endswith(".")


def test_reading_hollow_values() -> None:
    seen: list[Any] = []

    def work() -> None:
        x = hollow((4, 6))
        y = x.exp().add_(1).relu_()
        finite, undefined = torch.isfinite(y).all(), torch.isnan(y).any()
        seen.extend([bool(finite), bool(undefined), bool(torch.isfinite(y.mean())), int(y.argmax()), y.shape])
        y[0] = 3.0
        seen.append(y.t().reshape(2, 12).to(torch.float64).cpu())

    count_hollow(work)
    assert seen[:5] == [True, False, True, 0, (4, 6)]
    assert (seen[5].shape, seen[5].dtype) == ((2, 12), torch.float64)
    assert seen[5].untyped_storage().nbytes() == 8


@pytest.mark.parametrize(
    "read",
    [
        lambda x: float(x.mean()),
        lambda x: float(x.sum() * 2 + 1),
        lambda x: bool(x.norm() > 1e-3),
        lambda x: bool(torch.stack([x.mean(), x.sum()]).max() <= 1),
        lambda x: x.mean().item(),
        lambda x: x.numpy(),
        lambda x: np.asarray(x),
    ],
)
def test_a_number_that_may_decide_how_it_goes_on_is_not_made_up(read: Callable[[Tensor], Any]) -> None:
    with pytest.raises(NotCountableError):
        count_hollow(lambda: read(hollow((4, 6))))
    read(torch.rand(4, 6))


def test_arithmetic_outside_of_torch_is_named() -> None:
    assert count(lambda: torch.from_numpy(torch.rand(3, 3).numpy() @ np.eye(3, dtype=np.float32))).uncounted == (
        "numpy",
    )
    assert count(lambda: torch.arange(3).numpy()).uncounted == ()


def test_products_in_lists_are_named() -> None:
    product = getattr(torch, "_foreach_mm", None)
    if product is None:
        pytest.skip("this torch has no such operation")
    assert count(lambda: product([torch.rand(2, 2)], [torch.rand(2, 2)])).uncounted


def test_steps_may_be_left_out_only_while_counting_without_values() -> None:
    assert [list(repeated(n)) for n in (0, 2, 5)] == [[], [0, 1], [0, 1, 2, 3, 4]]
    seen: list[int] = []
    count_hollow(lambda: seen.extend(repeated(9)))
    assert seen == [0, 1, 2]
    assert list(repeated(4)) == [0, 1, 2, 3]


def test_labels_stay_real() -> None:
    labels = torch.tensor([2, 0, 1, 2])
    seen: list[list[int]] = []

    def work() -> None:
        counts = torch.zeros(3, dtype=torch.int64).index_add_(0, labels, torch.ones_like(labels))
        seen.append(counts.tolist())
        seen.append(labels[labels > 0].sort().values.tolist())

    count_hollow(work)
    assert seen == [[1, 1, 2], [1, 2, 2]]


def test_what_is_large_is_not_computed_even_if_it_could_be() -> None:
    matrix = torch.rand(300, 300)

    def work() -> None:
        product = matrix @ matrix
        assert float(product[0, 0]) == 1.0  # what stands for values that are not known
        torch.rand(1000, 1000) @ torch.zeros(1000, 1000).add_(1)

    peak = measure_peak(lambda: count_hollow(work), torch.device("cpu")).tensors
    assert peak < 100_000
    assert count_hollow(work).macs == 300**3 + 1000**3


def test_mistakes_stay_mistakes() -> None:
    with pytest.raises(RuntimeError, match="dim"):
        count_hollow(lambda: hollow((3, 4)) @ hollow((3, 4)))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 99)), max_size=4), st.integers(1, 99))
def test_counts_add_up(parts: list[tuple[str, int]], other: int) -> None:
    first, second = Count(dict(parts), ("x",)), Count({"a": other}, ("w", "x"))
    both = first + second
    assert both.macs == first.macs + second.macs
    assert (both - second).macs == first.macs
    assert both.uncounted == ("w", "x")


def test_a_count_can_be_read_as_it_goes_on() -> None:
    with counting() as tally:
        torch.rand(3, 4) @ torch.rand(4, 5)
        assert tally.macs == 60
        torch.rand(3, 4) @ torch.rand(4, 5)
    assert tally.count() == Count({"matrix product": 120})


# thop ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "side", "expected"),
    [
        ("resnet18", 224, {"BatchNorm2d": -9_934_848, "AdaptiveAvgPool2d": -25_600}),
        ("tf_efficientnet_b0", 224, {"Conv2dSame": 17_616_480, "AdaptiveAvgPool2d": -64_000}),
        ("test_vit", 160, {"Attention": 6 * 2 * 101**2 * 64}),
    ],
)
def test_every_cause_of_thops_difference_is_found(name: str, side: int, expected: dict[str, int]) -> None:
    network = timm.create_model(name, num_classes=0).train()
    before = list(network.state_dict())
    pixels = torch.rand(1, 3, side, side)
    found = explain_thop(network, pixels)
    assert {cause.layer: cause.difference for cause in found.causes} == expected
    assert found.ours - found.thop == sum(expected.values())
    assert found.ours == NETWORKS[name][1]
    assert network.training
    assert list(network.state_dict()) == before
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import thop  # warns of what it uses

        assert found.thop == thop.profile(network.eval(), inputs=(pixels,), verbose=False)[0]


def test_causes_in_words() -> None:

    class Doubled(nn.Conv2d):
        """A convolution that thop does not know, called twice."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = Doubled(3, 4, 3)
            self.norm = nn.BatchNorm2d(4)
            self.linear = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = (self.norm(self.layer(x)) + self.layer(x)).mean((2, 3))
            return torch.matmul(self.linear(x), torch.ones(2, 7))

    found = explain_thop(Own(), torch.rand(2, 3, 6, 6))
    convolutions = 2 * 2 * 16 * 4 * 3 * 9
    assert found.ours == convolutions + 2 * 4 * 2 + 2 * 2 * 7
    assert sum(cause.difference for cause in found.causes) == found.ours - found.thop
    assert [str(cause) for cause in found.causes] == [
        f"thop misses the {convolutions} of Doubled",
        "thop counts 512 for BatchNorm2d, which multiplies no weights",
        "thop misses the 28 of Own",
    ]
