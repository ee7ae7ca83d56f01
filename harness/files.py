"""Writing files so that a kill or a full disk at any instant leaves only whole ones."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from lite_bench.harness.errors import RunError

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


@contextlib.contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` while writing ``path`` into one sentence with the remedy.

    Raises:
        RunError: the disk is full, or the file cannot be written for another reason.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in DISK_FULL:
            raise RunError(
                f"The disk is full: could not write {path} ({reason}); free some space, then resume. "
                "Nothing already written is lost."
            ) from error
        raise RunError(f"Could not write {path}: {reason}; check the path and its permissions.") from error


def write_atomically(path: Path, data: bytes | str) -> None:
    """Replace ``path`` by ``data`` in one step: readers see the old file or the new one, never a part.

    Missing parent folders are made. The data is on disk (fsync) before it takes the name.

    Args:
        path: the file to write; an existing one must be a regular file.
        data: its whole content; text is written as UTF-8.

    Raises:
        RunError: the file cannot be written; the old one is unchanged.
    """
    content = data.encode() if isinstance(data, str) else data
    with write_errors(path):
        if path.exists() and not path.is_file():
            raise RunError(f"Could not write {path}: it exists and is not a regular file; name another file.")
        target = path.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name[:64]}.{secrets.token_hex(6)}.tmp")
        try:
            with temporary.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Be the only process that holds the lock file ``path``; the lock ends with the process, however it ends.

    Where there are no locks (Windows, some network file systems) nothing is locked and nothing refused.

    Args:
        path: the file, made if missing and never removed.
        refusal: what to say when another process holds it.

    Raises:
        RunError: another process holds it, or the file cannot be made.
    """
    try:
        import fcntl  # imported here: Windows has none
    except ImportError:
        yield
        return
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with write_errors(path):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError(refusal) from error
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
        yield
    finally:
        os.close(descriptor)


def append_line(path: Path, text: str) -> None:
    """Append ``text`` and a newline to ``path`` in one write.

    Several processes may append to one file. Missing parent folders are made. A line of which only a
    part could be written is cut off again.

    Args:
        path: the file to append to.
        text: the line, without a newline.

    Raises:
        RunError: the line cannot be written; the lines already there are unchanged.
        ValueError: ``text`` holds a newline.
    """
    if "\n" in text:
        raise ValueError(f"a line holds no newline: {text!r}")
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            _append_whole(descriptor, f"{text}\n".encode())
        finally:
            os.close(descriptor)


def _append_whole(descriptor: int, data: bytes) -> None:
    """Write all of ``data`` at the end of an open file, or nothing."""
    written = 0
    try:
        while written < len(data):
            written += os.write(descriptor, data[written:])
    except OSError:
        end = os.lseek(descriptor, 0, os.SEEK_CUR)
        # Cut only what is ours: another process may have appended its own line meanwhile.
        if written and os.fstat(descriptor).st_size == end:
            os.ftruncate(descriptor, end - written)
        raise
