"""Under autocast networks may run in bfloat16; features leave them as float32 and heads compute in float32."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lite_bench.baselines.finetuner import FineTuner
from lite_bench.baselines.fomaml import FirstOrderMAML
from lite_bench.models.backbones import Backbone, timm_backbone
from lite_bench.models.cnaps import CNAPs
from lite_bench.models.encoding import ExactEncode, FullEncode
from lite_bench.models.protonets import ProtoNets
from lite_bench.models.simple_cnaps import SimpleCNAPs
from tests.models.toys import tiny_backbone, tiny_episode

MATRIX = ("mm", "addmm", "bmm", "matmul", "linalg_cholesky_ex", "linalg_solve_triangular")
COSINE = {"metric": "cosine"}


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Record the element types of matrix products while no network runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtypes: set[torch.dtype] = set()
        self.inside = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.inside and func.overloadpacket.__name__ in MATRIX:
            first = result[0] if isinstance(result, tuple) else result
            self.dtypes.add(first.dtype)
        return result


class Watched(Backbone):
    """A backbone that tells the recorder when it runs."""

    products: Products
    seen: set[torch.dtype]

    def forward(self, images: Any, parameters: Any = None) -> Any:
        self.products.inside += 1
        features = super().forward(images, parameters)
        self.seen.add(features.dtype)
        self.products.inside -= 1
        return features


def tensors(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    if isinstance(state, dict):
        return [t for value in state.values() for t in tensors(value)]
    if dataclasses.is_dataclass(state):
        return [t for field in dataclasses.fields(state) for t in tensors(getattr(state, field.name))]
    return []


@pytest.mark.parametrize(
    ("factory", "options"),
    [(ProtoNets, {}), (ProtoNets, COSINE), (CNAPs, {}), (SimpleCNAPs, {}), (FineTuner, {}), (FirstOrderMAML, {})],
)
@pytest.mark.parametrize("encode", [FullEncode(4), ExactEncode(4)])
def test_heads_run_in_float32(factory: Any, options: dict[str, Any], encode: Any) -> None:
    torch.manual_seed(0)
    backbone = tiny_backbone()
    backbone.__class__ = Watched
    watched: Any = backbone
    watched.products, watched.seen = Products(), set()
    learner = factory(backbone, **options).train()
    episode = tiny_episode(n=8, way=2)
    (batch,) = episode.query
    with torch.autocast("cpu", torch.bfloat16), watched.products:
        state = learner.adapt(episode.support, encode)
        logits = learner.classify(state, batch.images)
    assert watched.seen == {torch.float32}
    assert watched.products.dtypes == {torch.float32}
    assert logits.dtype == torch.float32
    assert {t.dtype for t in tensors(state)} == {torch.float32}


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit"])
def test_networks_run_in_bfloat16_and_hand_out_float32(name: str) -> None:
    torch.manual_seed(0)
    backbone = timm_backbone(name, image_size=64, pretrained=False).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64)).to(torch.uint8)
    inner: set[torch.dtype] = set()
    for module in backbone.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(lambda m, i, o: inner.add(o.dtype))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = backbone(images)
    assert inner == {torch.bfloat16}
    assert features.dtype == torch.float32


def test_double_precision_stays_double() -> None:
    backbone = tiny_backbone().double()
    (batch,) = tiny_episode().query
    assert backbone(batch.images).dtype == torch.float64
