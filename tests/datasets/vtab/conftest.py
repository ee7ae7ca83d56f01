"""Small stand-ins that several files of tests read."""

from __future__ import annotations

from pathlib import Path

import pytest

from lite_bench.datasets.vtab.standin import write_standin

WRITTEN = ("oxford_flowers102", "sun397", "clevr", "dsprites", "smallnorb", "kitti", "sun397-folder")


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the stand-ins ``WRITTEN``; do not write to it."""
    root = tmp_path_factory.mktemp("vtab")
    write_standin(root, datasets=WRITTEN)
    return root


@pytest.fixture(autouse=True)
def _own_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep indexes in, and look for data in, folders of the test."""
    monkeypatch.setenv("LITE_BENCH_HOME", str(tmp_path / "lite-bench"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SUN397_ROOT", raising=False)
