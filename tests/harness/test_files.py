"""Writes are whole or did not happen."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lite_bench.harness.errors import RunError
from lite_bench.harness.files import append_line, locked, write_atomically


def failing(number: int) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_file_is_made_with_its_folders_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a/b/file.json"
    write_atomically(path, "ä\n")
    assert path.read_bytes() == "ä\n".encode()
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [each.name for each in path.parent.iterdir()] == ["file.json"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    write_atomically(tmp_path / "atomic", "")
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, step: str
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(os if step == "fsync" else Path, step, failing(number))
    with pytest.raises(RunError, match=r"The disk is full: could not write .*file .*free some space"):
        write_atomically(path, "new")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_a_kill_in_the_middle_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", "new")
    assert list(tmp_path.iterdir()) == []


def test_other_trouble_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"Could not write .*permissions"):
        write_atomically(tmp_path / "file/below", "")
    with pytest.raises(RunError, match=r"Could not write .*permissions"):
        append_line(tmp_path / "file/below", "")


def test_folders_and_devices_are_not_replaced(tmp_path: Path) -> None:
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(RunError, match="not a regular file"):
            write_atomically(path, "")


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "a/lines"
    append_line(path, "one")
    append_line(path, "zwölf")
    assert path.read_text(encoding="utf-8") == "one\nzwölf\n"
    with pytest.raises(ValueError, match="no newline"):
        append_line(path, "a\nb")


@pytest.mark.parametrize("taken", [0, 1, 7])
def test_a_line_cut_short_by_a_full_disk_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    path = tmp_path / "lines"
    append_line(path, "whole")
    write, room = os.write, [taken]

    def write_little(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", write_little)
    with pytest.raises(RunError, match="The disk is full"):
        append_line(path, "a longer line")
    assert path.read_bytes() == b"whole\n"


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    append_line(tmp_path / "lines", "a longer line")
    assert (tmp_path / "lines").read_text() == "a longer line\n"


def test_a_real_limit_on_the_file_cuts_the_line_off(tmp_path: Path) -> None:
    """The kernel itself takes 4 bytes of the second line and refuses the rest."""
    code = (
        "import resource\nfrom pathlib import Path\nfrom lite_bench.harness.files import append_line\n"
        "append_line(Path('lines'), 'whole')\nresource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "append_line(Path('lines'), 'a longer line')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "RunError: Could not write lines: File too large" in done.stderr
    assert (tmp_path / "lines").read_bytes() == b"whole\n"


def test_a_lock_is_held_by_one_and_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lock"
    with locked(path, "taken"), pytest.raises(RunError, match="taken"), locked(path, "taken"):
        pass
    code = f"""
import os
from pathlib import Path
from lite_bench.harness.files import locked
with locked(Path({str(path)!r}), "taken"):
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    with locked(path, "taken"):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_nothing_is_refused(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(code, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    with locked(tmp_path / "lock", "taken"):
        pass
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    with locked(tmp_path / "lock", "taken"):
        pass


def test_a_lock_that_fails_otherwise_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fcntl.flock", broken)
    with (
        pytest.raises(RunError, match=r"Could not write .*lock: Input/output error"),
        locked(tmp_path / "lock", "taken"),
    ):
        pass
