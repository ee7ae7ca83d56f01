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
def _own_index(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the indexes of test data out of the user's cache, in one place for the session."""
    monkeypatch.setenv("LITE_BENCH_HOME", str(tmp_path_factory.getbasetemp() / "lite-bench-home"))
