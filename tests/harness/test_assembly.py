"""From settings to objects, and which of them do not belong together."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from lite_bench.harness.assembly import (
    assemble,
    build_backbone,
    build_estimator,
    build_learner,
    build_suite,
    check_estimator_fits,
    choose_device,
    choose_suite,
    layers_on_initial_statistics,
    limit_memory,
    precision_context,
    seeded,
)
from lite_bench.harness.errors import (
    DataError,
    IncompatibleError,
    PluginError,
    UnknownNameError,
    UsageError,
    WeightsError,
)
from lite_bench.harness.registry import LEARNERS, SUITES
from lite_bench.harness.settings import DEFAULT_GRADIENT
from tests.harness.small import small_settings


def fits(**changes: Any) -> None:
    assembly = assemble(small_settings(image_size=32, **changes), 32)
    check_estimator_fits(assembly.module.train(), assembly.estimator)


@pytest.mark.parametrize("gradient", ["lite", "exact", "lite-redraw", "lite-code", "lite-paper"])
@pytest.mark.parametrize(
    ("learner", "params"), [("protonets", {"batch_statistics": "true"}), ("simple_cnaps", {"set_statistics": "batch"})]
)
def test_batch_statistics_need_the_full_gradient(learner: str, params: dict[str, str], gradient: str) -> None:
    with pytest.raises(IncompatibleError, match=f"--gradient {gradient} needs .*--gradient full") as refused:
        fits(learner=learner, params=params, gradient=gradient)
    assert refused.value.exit_code == 2
    fits(learner=learner, params=params, gradient="full")
    fits(learner=learner, gradient=gradient)


def test_idle_normalisation_is_found_in_frozen_networks_too() -> None:
    frozen = assemble(small_settings(learner="simple_cnaps", image_size=32), 32).module.train()
    assert len(layers_on_initial_statistics(frozen)) == 4
    layer = nn.BatchNorm2d(3)
    assert layers_on_initial_statistics(nn.Sequential(layer).train()) == []
    assert layers_on_initial_statistics(nn.Sequential(layer).eval()) == ["0"]
    layer.train()(torch.rand(2, 3, 4, 4))
    assert layers_on_initial_statistics(nn.Sequential(layer).eval()) == []
    assert layers_on_initial_statistics(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)).eval()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learner": "protonet"}, "no learner 'protonet'. Did you mean protonets"),
        ({"gradient": "ful"}, "no gradient estimator 'ful'. Did you mean full"),
        ({"backbone": "resnet1800"}, "no backbone 'resnet1800'. Did you mean .*resnet18"),
        ({"backbone": "conv5"}, "no backbone 'conv5'"),
        ({"params": {"metrik": "cosine"}}, "Did you mean metric"),
    ],
)
def test_unknown_names_get_suggestions(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        assemble(small_settings(**changes), 32)


def test_unknown_suite_and_its_options() -> None:
    with pytest.raises(UnknownNameError, match=r"no suite 'glyph'. Did you mean glyphs"):
        build_suite("glyph", 28, None, {})
    with pytest.raises(UnknownNameError, match=r"no option -S of suite 'glyphs' called 'ways'. Did you mean way"):
        build_suite("glyphs", 28, None, {"ways": 3})
    with pytest.raises(UsageError, match="Suite glyphs reads no folder"):
        build_suite("glyphs:photos", 28, None, {})


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UsageError, match=r"--device cuda:99 is not there .*--device cpu"):
        choose_device("cuda:99")


@pytest.mark.parametrize(
    "name", ["conv4", "conv4+gn", "resnet18_84", "timm:resnet18", "resnet18+gn", "timm:resnet18+gn"]
)
def test_forms_of_a_backbone_name(name: str) -> None:
    backbone: Any = build_backbone(name, image_size=32, pretrained=False)
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert bool(norms) != name.endswith("+gn")
    assert backbone(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, backbone.features)


def test_the_seed_decides_a_backbone() -> None:
    def weights(seed: int) -> torch.Tensor:
        return next(build_backbone("conv4", image_size=28, pretrained=False, seed=seed).parameters())

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


class FakeSuites:
    """The registry's face, with suites of the test's own."""

    def __init__(self, **suites: Any) -> None:
        self.suites = suites

    def names(self) -> list[str]:
        return list(self.suites)

    def load(self, name: str) -> Any:
        if self.suites[name] is None:
            raise PluginError("broken")
        return self.suites[name]


def suite(embedded: bool, where: str | None) -> SimpleNamespace:
    return SimpleNamespace(embedded=embedded, configured=lambda data_dir: where)


def test_a_suite_is_chosen_by_the_data_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    name, reason = choose_suite(None)
    assert SUITES.load(name).embedded
    assert "needs none" in reason

    def chosen(**suites: Any) -> tuple[str, str]:
        monkeypatch.setattr("lite_bench.harness.assembly.SUITES", FakeSuites(**suites))
        return choose_suite(None)

    first = {"broken": None, "inside": suite(True, None), "absent": suite(False, None)}
    assert chosen(**first)[0] == "inside"
    name, reason = chosen(**first, there=suite(False, "under DATA"))
    assert (name, reason) == ("there", "its data was found (under DATA)")
    with pytest.raises(UsageError, match="give --suite and --data-dir"):
        chosen(broken=None, absent=suite(False, None))


def photographs(root: Path) -> Path:
    for number in range(9):
        for shot in range(4):
            path = root / f"class{number}" / f"{shot}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9), (number * 20, shot * 40, 0)).save(path)
    return root


def test_a_folder_of_images_is_chosen_and_opened(tmp_path: Path) -> None:
    root = photographs(tmp_path / "photos")
    name, reason = choose_suite(root)
    assert str(root) in reason
    options = {"way": "2", "shot": "1", "query": "1", "train_fraction": "0.5", "validation_fraction": "0.2"}
    by_path = build_suite(f"{name}:{root}", 16, None, options)
    by_data_dir = build_suite(name, 16, root, options)
    assert by_path.id == by_data_dir.id
    task = by_path.train_task(0, 0)
    images = by_path.episode(task).support.images
    assert images.shape == (2, 3, 16, 16)
    assert torch.equal(images, by_data_dir.episode(task).support.images)
    with pytest.raises((DataError, UsageError), match="absent"):
        build_suite(f"{name}:{root}/absent", 16, None, {})
    with pytest.raises(UsageError, match="needs a folder"):
        build_suite(name, 16, None, {})


@pytest.mark.parametrize("made", [object(), nn.Linear(1, 1)])
def test_a_learner_that_is_none(made: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(LEARNERS), "load", lambda self, name: lambda backbone: made)
    monkeypatch.setattr("lite_bench.harness.assembly.build_backbone", lambda *_, **__: nn.Identity())
    with pytest.raises(PluginError, match=r"must be a torch\.nn\.Module with adapt"):
        build_learner(small_settings(), 28)


def test_precision_is_a_context() -> None:
    device = torch.device("cpu")
    linear = nn.Linear(2, 2)
    with precision_context("bf16", device)():
        assert linear(torch.ones(1, 2)).dtype is torch.bfloat16
    with precision_context("fp32", device)():
        assert linear(torch.ones(1, 2)).dtype is torch.float32


def test_seeded_blocks_leave_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    with seeded("a", 1):
        first = torch.rand(3)
    with seeded("a", 1):
        assert torch.equal(torch.rand(3), first)
    with seeded("a", 2):
        assert not torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("name", "index"), [("cuda", 3), ("cuda:1", 1)])
def test_a_budget_limits_what_torch_takes_of_a_gpu(name: str, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, object]] = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=4 * 10**9))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda part, device: seen.append((part, device)))
    for budget in (10**9, 10**10):
        limit_memory(torch.device(name), budget)
    limit_memory(torch.device("cpu"), 1)
    assert seen == [(0.25, index), (1.0, index)]


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("bf16", False), ("tf32", True)])
def test_convolutions_round_to_tf32_only_when_asked(
    precision: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", not allowed)
    assemble(small_settings(precision=precision), 28)
    assert torch.backends.cudnn.allow_tf32 is allowed


def test_estimators_get_their_sizes() -> None:
    estimator: Any = build_estimator(small_settings(lite_h=7, batch_size=9))
    assert (estimator.name, estimator.h, estimator.chunk) == (DEFAULT_GRADIENT, 7, 9)


@pytest.fixture
def unplugged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """A machine without a network or proxy, whose cache of weights is empty."""
    from huggingface_hub import constants

    def unknown(host: str, *_: Any, **__: Any) -> Any:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return constants


def test_without_a_network_pretrained_weights_fail_at_once(unplugged: Any, capfd: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    with pytest.raises(WeightsError, match=r"--weights FILE.*--no-pretrained"):
        build_backbone("resnet18", image_size=32)
    assert time.monotonic() - begun < 10
    assert capfd.readouterr() == ("", "")
    assert unplugged.HF_HUB_OFFLINE is False


def test_the_hub_is_asked_where_it_may_be_reached(unplugged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from lite_bench.models.hub import cache_only_without_network

    with cache_only_without_network():
        assert unplugged.HF_HUB_OFFLINE is True
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "proxy"})
    with cache_only_without_network():
        assert unplugged.HF_HUB_OFFLINE is False
    monkeypatch.setattr(unplugged, "HF_HUB_OFFLINE", True)
    with cache_only_without_network():
        assert unplugged.HF_HUB_OFFLINE is True


def test_a_cached_copy_is_used_without_a_network(unplugged: Any) -> None:
    import timm
    from safetensors.torch import save_file

    network = timm.create_model("resnet18", pretrained=False)
    weights = {key: torch.full_like(value, 2) for key, value in network.state_dict().items()}
    folder = Path(unplugged.HF_HUB_CACHE) / f"models--{network.pretrained_cfg['hf_hub_id'].replace('/', '--')}"
    commit = "0" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    save_file(weights, folder / "snapshots" / commit / "model.safetensors")
    backbone = build_backbone("resnet18", image_size=32)
    assert all(bool((parameter == 2).all()) for parameter in backbone.parameters())
