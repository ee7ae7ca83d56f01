"""Checkpoints: everything comes back, everything else is refused with a reason, nothing is pickled."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lite_bench.harness.assembly import assemble
from lite_bench.harness.checkpoints import (
    FORMAT,
    HEADER,
    CheckpointInfo,
    file_sha256,
    read_checkpoint,
    read_info,
    restore,
    save_checkpoint,
)
from lite_bench.harness.errors import RunError, WeightsError
from tests.harness.small import small_settings

INFO = CheckpointInfo("protonets", "conv4", 28, 3, 12, 0.5)


def network(seed: int = 0, width: int = 4) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width * 4, 2))
    return layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return, unused-ignore]


def stepped(seed: int = 0, steps: int = 2) -> tuple[nn.Sequential, torch.optim.Optimizer]:
    module = network(seed)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    step(module, optimizer, steps)
    return module, optimizer


def step(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 1) -> None:
    images = torch.linspace(-1, 1, 5 * 3 * 4 * 4).view(5, 3, 4, 4)
    for _ in range(steps):
        optimizer.zero_grad()
        module(images).square().sum().backward()
        optimizer.step()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, INFO, *stepped())
    return path


def test_training_goes_on_as_if_nothing_had_happened(path: Path) -> None:
    module, optimizer = stepped()
    other, other_optimizer = stepped(seed=1, steps=1)
    info = restore(path, "protonets", other, other_optimizer)
    assert (info.step, info.tasks, info.best_accuracy, info.format) == (3, 12, 0.5, FORMAT)
    for each, its in ((module, optimizer), (other, other_optimizer)):
        step(each, its, 2)
    for key, value in module.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    for state, restored in zip(optimizer.state.values(), other_optimizer.state.values(), strict=True):
        for name, value in state.items():
            assert torch.equal(value, restored[name])
            assert value.stride() == restored[name].stride()


def test_the_json_beside_it_says_what_it_holds(path: Path) -> None:
    content = json.loads(path.with_suffix(".json").read_text())
    assert (content["learner"], content["backbone"], content["tasks"]) == ("protonets", "conv4", 12)


def test_the_description_is_read_without_the_tensors(path: Path) -> None:
    assert read_info(path).tasks == 12
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + length])
    assert json.loads(header["__metadata__"][HEADER])["learner"] == "protonets"


def test_nothing_is_pickled(path: Path) -> None:
    content = path.read_bytes()
    assert content[8:9] == b"{"
    assert load_file(path).keys() == read_checkpoint(path)[1].keys()


def test_weights_alone_serve_evaluation_but_not_training(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    module, optimizer = stepped()
    save_checkpoint(path, replace(INFO, groups=[{"params": [0]}]), module)
    assert read_info(path).groups == []
    restore(path, "protonets", network(1))
    with pytest.raises(WeightsError, match=r"no optimizer state.*use last\.safetensors"):
        restore(path, "protonets", network(1), optimizer)


def test_tied_weights_survive(tmp_path: Path) -> None:
    def tied() -> list[nn.Linear]:
        first, second = nn.Linear(3, 3), nn.Linear(3, 3)
        second.weight = first.weight
        return [first, second]

    module, other = tied(), tied()
    save_checkpoint(tmp_path / "tied.safetensors", INFO, nn.Sequential(*module))
    restore(tmp_path / "tied.safetensors", "protonets", nn.Sequential(*other))
    assert torch.equal(other[1].weight, module[0].weight)


def test_a_checkpoint_of_another_learner(path: Path) -> None:
    with pytest.raises(WeightsError, match="is a checkpoint of protonets, not of cnaps"):
        restore(path, "cnaps", network())


def test_a_learner_with_other_options(path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"does not fit this protonets .*size mismatch.* options it was trained with"
    ):
        restore(path, "protonets", network(width=8))


def test_an_optimizer_of_other_parameters(path: Path) -> None:
    module = network()
    with pytest.raises(WeightsError, match="other trainable parameters"):
        restore(path, "protonets", module, torch.optim.Adam(list(module.parameters())[:1]))


def with_header(path: Path, text: str) -> Path:
    save_file({"model.0": torch.zeros(1)}, path, metadata={HEADER: text})
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({"format": FORMAT + 1}), f"has checkpoint format {FORMAT + 1}, this version reads {FORMAT}"),
        ("{", "damaged description"),
        ("{}", "damaged description"),
        ("[]", "damaged description"),
        (json.dumps({"format": FORMAT, "learner": "protonets"}), "damaged description"),
    ],
)
def test_a_description_of_another_version_or_none(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message):
        restore(with_header(tmp_path / "odd.safetensors", text), "protonets", network())


def test_plain_weights_are_no_checkpoint(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(WeightsError, match="no lite-bench checkpoint; plain weights go to --weights"):
        read_info(tmp_path / "plain.safetensors")


@pytest.mark.parametrize("keep", [0, 7, 300, -5])
def test_a_damaged_file(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="is damaged or no safetensors file"):
        read_checkpoint(path)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="no safetensors file"):
        read_checkpoint(tmp_path / "model.safetensors")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"There is no checkpoint .*absent"):
        read_checkpoint(tmp_path / "absent.safetensors")


def test_a_failed_write_keeps_the_earlier_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file_sha256(path)

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(RunError, match="The disk is full"):
        save_checkpoint(path, INFO, *stepped(seed=3))
    assert file_sha256(path) == before


def test_a_whole_learner_round_trips(tmp_path: Path) -> None:
    a, b = (assemble(small_settings(learner="cnaps", image_size=32, seed=seed), 32).module for seed in (0, 1))
    save_checkpoint(tmp_path / "a.safetensors", CheckpointInfo("cnaps", "conv4", 32, 0, 0), a)
    restore(tmp_path / "a.safetensors", "cnaps", b)
    for key, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[key])
