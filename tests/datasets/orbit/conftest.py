"""What every test of ORBIT runs under."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what is found in test data out of the user's cache."""
    monkeypatch.setenv("LITE_BENCH_HOME", str(tmp_path_factory.getbasetemp() / "lite-bench-home"))
