"""Fixtures of the harness tests."""

from __future__ import annotations

import pytest

from tests.harness.small import Shell


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """The command line, in this process."""
    return Shell(monkeypatch, capsys)
