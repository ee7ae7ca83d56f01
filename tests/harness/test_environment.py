"""The environment that a result is recorded with."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from lite_bench.harness import environment


def python(code: str, **environ: str) -> str:
    command, environ = [sys.executable, "-c", code], {"HOME": str(Path.home()), **environ}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout.strip()


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_description_is_json_with_the_versions_that_matter() -> None:
    described = json.loads(json.dumps(environment.describe_environment(devices=True)))
    import torch

    assert described["versions"]["torch"] == version("torch")
    assert described["versions"]["lite-bench"]
    assert described["python"] == ".".join(map(str, sys.version_info[:3]))
    assert described["started"].endswith("+00:00")
    assert described["cpu"]
    assert len(described["devices"]["gpus"]) == torch.cuda.device_count()


def test_describing_versions_imports_nothing_heavy() -> None:
    describe = "from lite_bench.harness.environment import device_text, describe_environment; describe_environment()"
    code = f"{describe}; import sys; print([m for m in ('torch', 'numpy', 'timm') if m in sys.modules])"
    assert python(code) == "[]"


def test_absent_distribution_has_no_version() -> None:
    assert environment.installed_version("no-such-distribution-here") is None


def test_command_line_hides_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["train", f"--data-dir={Path.home()}/data", "a b"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/lite-bench", *arguments])
    assert environment.command_line() == "lite-bench train --data-dir=~/data 'a b'"


def test_git_revision_and_dirt(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    revision = git(tmp_path, "rev-parse", "HEAD")
    assert environment.git_state(tmp_path) == {"revision": revision, "dirty": False}
    (tmp_path / "file").write_text("two")
    assert environment.git_state(tmp_path) == {"revision": revision, "dirty": True}


def test_no_git_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment.git_state(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert environment.git_state(tmp_path) is None


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"XDG_CACHE_HOME": "/cache"},
        {"XDG_CACHE_HOME": "/cache", "TORCH_HOME": "~/torch", "HF_HOME": "/hf"},
        {"HF_HOME": "/hf", "HF_HUB_CACHE": "/hub"},
        {"HUGGINGFACE_HUB_CACHE": "/old"},
    ],
    ids=lambda environ: "+".join(environ) or "none",
)
def test_weights_folders_are_those_of_the_libraries(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    for name in ("XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
        if name in environ:
            monkeypatch.setenv(name, environ[name])
    hugging_face = python("from huggingface_hub import constants; print(constants.HF_HUB_CACHE)", **environ)
    folders = environment.weights_cache_folders(environ)
    assert folders["torch"] == Path(torch.hub.get_dir()) / "checkpoints"
    assert folders["huggingface"] == Path(hugging_face)


def test_a_device_is_named_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.device_text(torch.device("cpu")) == f"CPU, {torch.get_num_threads()} threads"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device}")
    assert environment.device_text(torch.device("cuda:1")) == "card cuda:1"
