"""Stand-ins of the whole benchmark, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from lite_bench.datasets.vtab_md.data import VtabMdData


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``--data-dir`` with stand-ins of all sources; do not write to it."""
    folder = tmp_path_factory.mktemp("standin") / "data"
    VtabMdData().synthesise(folder, seed=0, workers=2, notify=lambda name, done, total, detail: None)
    return folder


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the indexes of test data out of the user's cache, and the user's own TFDS copies out of the tests."""
    home = tmp_path_factory.getbasetemp() / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("LITE_BENCH_HOME", str(home / "lite-bench"))
