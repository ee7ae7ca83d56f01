"""Weight files: every layout that fits is read, and what does not fit is counted and named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lite_bench.baselines.fomaml import FirstOrderMAML
from lite_bench.harness.checkpoints import CheckpointInfo, save_checkpoint
from lite_bench.harness.errors import WeightsError
from lite_bench.models.backbones import Backbone, timm_backbone
from lite_bench.models.cnaps import CNAPs
from lite_bench.models.protonets import ProtoNets
from lite_bench.models.simple_cnaps import SimpleCNAPs

NAME = "test_efficientnet"


def network(name: str = NAME, **options: Any) -> Any:
    return timm.create_model(name, **options)


def load(path: Path, name: str = NAME) -> Backbone:
    return timm_backbone(name, image_size=64, weights=path)


def same(backbone: Backbone, source: nn.Module) -> bool:
    theirs = source.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in backbone.network.state_dict().items())


def save_plain(state: dict[str, Tensor], path: Path) -> None:
    torch.save(state, path)


def save_wrapped(state: dict[str, Tensor], path: Path) -> None:
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, path)


def save_model_key(state: dict[str, Tensor], path: Path) -> None:
    torch.save({"model": state}, path)


@pytest.mark.parametrize(
    ("suffix", "save"),
    [
        (".safetensors", save_file),
        (".pth", save_plain),
        (".pt", save_plain),
        (".pth", save_wrapped),
        (".pth", save_model_key),
    ],
)
def test_layouts_are_recognised_and_the_classifier_is_ignored(
    suffix: str, save: Callable[[dict[str, Tensor], Path], None], tmp_path: Path
) -> None:
    source = network(num_classes=7)
    path = tmp_path / f"weights{suffix}"
    save(source.state_dict(), path)
    backbone = load(path)
    assert same(backbone, source)
    assert backbone.features == source.num_features


@pytest.mark.parametrize("factory", [ProtoNets, FirstOrderMAML, CNAPs, SimpleCNAPs])
def test_the_backbone_of_any_learners_checkpoint_is_found(factory: Any, tmp_path: Path) -> None:
    learner = factory(timm_backbone(NAME, image_size=64, pretrained=False))
    path = tmp_path / "last.safetensors"
    optimizer = torch.optim.Adam([p for p in learner.parameters() if p.requires_grad])
    for p in learner.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    optimizer.step()
    save_checkpoint(path, CheckpointInfo("any", NAME, 64, 1, 1), learner, optimizer)
    inside = learner.body.backbone if hasattr(learner, "body") else learner.backbone
    assert same(load(path), inside.network)


def test_counts_and_names_of_what_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    torch.save(network("test_resnet").state_dict(), path)
    with pytest.raises(WeightsError, match=r"\d+ missing \(.*, \.\.\.\).*\d+ unexpected \(conv1.*\.\.\.\)") as error:
        load(path)
    assert str(path) in str(error.value)
    assert f"does not fit backbone {NAME}" in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("prefix", ["", "module.", "model.backbone.network.", "model.body.backbone.network."])
def test_a_deeper_network_with_the_same_beginning_is_refused(prefix: str, tmp_path: Path) -> None:
    """All tensors of ResNet-18 have their names and shapes in ResNet-34 too."""
    path = tmp_path / "deeper.pth"
    torch.save({f"{prefix}{k}": v for k, v in network("resnet34").state_dict().items()}, path)
    with pytest.raises(WeightsError, match=r"unexpected \(layer1\.2\."):
        load(path, "resnet18")


def test_other_shapes_and_missing_tensors_are_named(tmp_path: Path) -> None:
    state = network(num_classes=0).state_dict()
    state["conv_stem.weight"] = torch.zeros(1, 2, 3, 4)
    del state["bn1.bias"]
    path = tmp_path / "broken.pth"
    torch.save(state, path)
    with pytest.raises(WeightsError, match=r"1 missing \(bn1.bias\); 1 of another shape \(conv_stem.weight\)\."):
        load(path)


def test_counters_of_batch_norm_may_be_missing(tmp_path: Path) -> None:
    source = network(num_classes=0)
    path = tmp_path / "old.pth"
    torch.save({k: v for k, v in source.state_dict().items() if not k.endswith("num_batches_tracked")}, path)
    assert same(load(path), source)


class Malice:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_pickled_code_is_refused_and_not_run(tmp_path: Path) -> None:
    path, marker = tmp_path / "malice.pth", tmp_path / "ran"
    torch.save({"conv_stem.weight": Malice(marker)}, path)
    with pytest.raises(WeightsError, match=r"cannot be read as weights .*plain tensors") as error:
        load(path)
    assert "weights_only" not in str(error.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "content"), [("a.pth", b"not a file"), ("a.safetensors", b"\x00" * 40), ("a.pth", b"")]
)
def test_damaged_files_are_named(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{name} cannot be read as weights"):
        load(tmp_path / name)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], 5])
def test_a_file_without_tensors_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "empty.pth")
    with pytest.raises(WeightsError, match="holds no tensors"):
        load(tmp_path / "empty.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(WeightsError, match="There is no weights file"):
            load(path)


def test_weights_win_over_pretrained_for_a_per_image_network(tmp_path: Path) -> None:
    source = timm_backbone(f"{NAME}+gn", image_size=64, pretrained=False)
    path = tmp_path / "gn.safetensors"
    save_file({k: v.contiguous() for k, v in source.network.state_dict().items()}, path)
    found = timm_backbone(f"{NAME}+gn", image_size=64, pretrained=True, weights=path)
    assert same(found, source.network)
    with pytest.raises(WeightsError, match="does not fit"):
        load(path)
