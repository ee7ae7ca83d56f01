"""Where a source's original files are, whether they are the published ones, and reading them without unpacking.

Members are read by position, so archives need no second copy on disk and several processes can read one. A
gzip-compressed tar has no random access of its own; here the decompressor's state is kept every few megabytes
and decompression goes on from the nearest one, which costs each process one pass and some 25 MB.
"""

from __future__ import annotations

import functools
import io
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from lite_bench.datasets.conversion.plan import Original
from lite_bench.datasets.meta_dataset.catalogue import published
from lite_bench.datasets.meta_dataset.specification import FlatSpecification, Specification
from lite_bench.harness.errors import DataError

CHUNK, MIN_SPACING, MAX_STATES = 1 << 16, 1 << 22, 512
LOCAL_HEADER, SIGNATURE = struct.Struct("<4s22xHH"), b"PK\3\4"
GZIP_WINDOW, RAW_WINDOW = 31, -15
DAMAGES = (OSError, EOFError, ValueError, zlib.error, tarfile.TarError, zipfile.BadZipFile, NotImplementedError)


def find_original(folder: Path, original: Original, source: str) -> Path:
    """Find a file or folder that ``source`` is published as.

    Raises:
        DataError: none of its names is in ``folder``.
    """
    for name in original.names:
        if found := sorted(folder.glob(name)):
            return found[0]
    note = f" ({original.note})" if original.note else ""
    raise DataError(
        f"{source} needs {' or '.join(original.names)}, which {folder} does not hold; "
        f"get it from {original.page}{note}."
    )


def flat_specification(source: str, counts: Mapping[str, int], place: Path) -> FlatSpecification:
    """Put the classes found in ``place`` in the published order; published classes without images are left out.

    Args:
        source: its name in the catalogue.
        counts: number of images by class name.
        place: where they were found, for messages.

    Raises:
        DataError: a class is not one of the source's, or there is none at all.
    """
    known = published(source)
    if foreign := sorted(set(counts) - set(known.class_names)):
        raise DataError(f"{place} holds images of {_listing(foreign)}, which {source} does not have; remove them.")
    names = tuple(name for name in known.class_names if counts.get(name))
    if not names:
        raise DataError(f"{place} holds no images of {source}'s classes; download or unpack it again.")
    sizes = {split: sum(known.class_names[i] in names for i in ids) for split, ids in known.splits.items()}
    return FlatSpecification(source, names, tuple(counts[name] for name in names), sizes)


def require_published(specification: Specification, place: Path) -> None:
    """Compare class names, ids, splits and image counts with the published ones.

    Args:
        specification: what was found.
        place: where, for messages.

    Raises:
        DataError: they differ; the first differences are named.
    """
    known = published(specification.name)
    found = dict(zip(specification.class_names, specification.images, strict=True))
    wanted = dict(zip(known.class_names, known.images, strict=True))
    differences = [
        *(
            f"class {name!r} has {found.get(name, 0)} images, not {n}"
            for name, n in wanted.items()
            if found.get(name) != n
        ),
        *(f"class {name!r} is not one of the published" for name in found if name not in wanted),
    ]
    if not differences and (specification.class_names != known.class_names or specification.splits != known.splits):
        differences = ["its classes are in another order or in other splits"]
    if differences:
        raise DataError(
            f"{place} is not the published {specification.name}: {_listing(differences)}; download or unpack it again."
        )


def _listing(texts: Sequence[str], shown: int = 3) -> str:
    more = f" and {len(texts) - shown} more" if len(texts) > shown else ""
    return ", ".join(texts[:shown]) + more


class Span(NamedTuple):
    """Where a member's content is: of a zip, from its local header on; of a compressed tar, after decompression."""

    offset: int = 0
    size: int = 0
    deflated: bool = False
    crc: int = 0


@dataclass(frozen=True)
class Members:
    """The files in a folder or an archive, named alike in both: ``CUB_200_2011/images/…``.

    It is small enough to be sent to another process once `only` has picked what that one needs.

    Attributes:
        path: the folder or archive.
        kind: how to read it.
        spans: where each file's content is, by name; names of a folder's files begin with the folder's own.
        label: what to call it in messages.
    """

    path: Path
    kind: Literal["folder", "zip", "tar", "tgz"]
    spans: Mapping[str, Span]
    label: str

    def matching(self, pattern: str) -> list[tuple[str, re.Match[str]]]:
        """List the files in which ``pattern`` is found, by name; forks and hidden files of macOS are left out."""
        found = ((name, re.search(pattern, name)) for name in sorted(self.spans) if "__MACOSX/" not in name)
        return [(name, match) for name, match in found if match and not name.rpartition("/")[2].startswith("._")]

    def only(self, names: Iterable[str]) -> Members:
        """Keep the files called ``names``.

        Raises:
            DataError: one of them is not there.
        """
        return replace(self, spans={name: self._span(name) for name in names})

    def place(self, name: str) -> str:
        """Say where a file is, for messages."""
        return str(self.path.parent / name) if self.kind == "folder" else f"{name} in {self.label}"

    def read(self, name: str) -> bytes:
        """Read one file.

        Raises:
            DataError: it is not there, or the archive is damaged.
        """
        return next(self.contents([name]))[1]

    def contents(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Read files one after the other, in the order of ``names``.

        Those of a compressed tar are read in the archive's order and held until all are there.

        Raises:
            DataError: a file is not there, or the archive is damaged.
        """
        if self.kind == "folder":
            for name in names:
                with _damage(self.place(name)):
                    data = (self.path.parent / name).read_bytes()
                yield name, data
            return
        with self._open() as stream:
            wanted = list(names)
            if self.kind != "tgz":
                yield from ((name, self._read(stream, name)) for name in wanted)
                return
            held = {name: self._read(stream, name) for name in sorted(set(wanted), key=self._span)}
            yield from ((name, held[name]) for name in wanted)

    def nested(self, name: str) -> Members:
        """List the files of a tar that is itself a file here; it may lie in a folder or an uncompressed tar.

        Raises:
            DataError: it is not there, not a tar, or damaged.
        """
        span, place = self._span(name), self.place(name)
        if self.kind == "folder":
            return open_members(self.path.parent / name)
        if self.kind != "tar":
            raise DataError(f"The archive {place} cannot be read in place; unpack {self.path} first.")
        with _damage(place), self.path.open("rb") as stream:
            return Members(self.path, "tar", _tar_spans(stream, span.offset), place)

    def _span(self, name: str) -> Span:
        if (span := self.spans.get(name)) is None:
            raise DataError(f"The file {self.place(name)} is missing; download or unpack {self.path.name} again.")
        return span

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        with _damage(self.label):
            stream = self.path.open("rb")
        with stream:
            yield io.BufferedReader(Inflated(stream, _states(self.path))) if self.kind == "tgz" else stream

    def _read(self, stream: BinaryIO, name: str) -> bytes:
        span = self._span(name)
        with _damage(self.place(name)):
            stream.seek(span.offset)
            if self.kind == "zip":
                signature, n_name, n_extra = LOCAL_HEADER.unpack(_exactly(stream, LOCAL_HEADER.size))
                if signature != SIGNATURE:
                    raise ValueError("no file begins at its position")
                stream.seek(n_name + n_extra, io.SEEK_CUR)
            data = _exactly(stream, span.size)
            if self.kind == "zip":
                data = zlib.decompress(data, RAW_WINDOW) if span.deflated else data
                if zlib.crc32(data) != span.crc:
                    raise ValueError("its checksum is wrong")
            return data


def open_members(path: Path) -> Members:
    """List the files in a folder, a zip, a tar or a gzip-compressed tar.

    Raises:
        DataError: it is missing, damaged or none of these.
    """
    with _damage(str(path)):
        if path.is_dir():
            spans = {file.relative_to(path.parent).as_posix(): Span() for file in path.rglob("*") if file.is_file()}
            return Members(path, "folder", spans, str(path))
        with path.open("rb") as stream:
            magic = stream.read(4)
            if magic == SIGNATURE:
                return Members(path, "zip", _zip_spans(stream), str(path))
            if magic[:2] == b"\x1f\x8b":
                inflated = Inflated(stream, _states(path))
                spans = _tar_spans(io.BufferedReader(inflated))
                inflated.check_rest()
                return Members(path, "tgz", spans, str(path))
            return Members(path, "tar", _tar_spans(stream), str(path))


def _zip_spans(stream: BinaryIO) -> dict[str, Span]:
    with zipfile.ZipFile(stream) as archive:
        files = [info for info in archive.infolist() if not info.is_dir()]
    for info in files:
        if info.flag_bits & 1 or info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise ValueError(f"{info.filename} is encrypted or compressed in an unusual way")
    return {i.filename: Span(i.header_offset, i.compress_size, i.compress_type != 0, i.CRC) for i in files}


def _tar_spans(stream: BinaryIO, offset: int = 0) -> dict[str, Span]:
    stream.seek(offset)
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        spans = {m.name.removeprefix("./"): Span(m.offset_data, m.size) for m in archive if m.isreg()}
    # tarfile takes a damaged or cut header for the end; the end has a mark.
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise EOFError(f"it is damaged or ends too early, behind {len(spans)} files")
    return spans


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError("it ends too early")
    return data


@contextmanager
def _damage(place: str) -> Iterator[None]:
    """Turn what goes wrong while an original is read into one sentence."""
    try:
        yield
    except DAMAGES as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"The original {place} cannot be read ({reason}); download or unpack it again.") from error


@dataclass
class State:
    """A decompressor that has given ``position`` bytes, before it reads on at ``offset``.

    Attributes:
        position: in the decompressed content.
        offset: in the compressed file.
        decompressor: never used itself, only its copies.
        started: whether it is inside a compressed stream, which may not end here.
    """

    position: int = 0
    offset: int = 0
    decompressor: zlib._Decompress = field(default_factory=lambda: zlib.decompressobj(GZIP_WINDOW))
    started: bool = False

    def copy(self) -> State:
        """Copy it, so that the copy can go on."""
        return State(self.position, self.offset, self.decompressor.copy(), self.started)


def _states(path: Path) -> list[State]:
    """Give the states of a compressed file that are known in this process."""
    status = path.stat()
    return _states_of_version(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _states_of_version(path: Path, size: int, changed: int) -> list[State]:
    del path, size, changed
    return [State()]


class Inflated(io.RawIOBase):
    """The content of a gzip file, with random access.

    Args of the constructor: the compressed file, and its known states, which grow while it is read.
    """

    def __init__(self, stream: BinaryIO, states: list[State]) -> None:
        """Begin at the start."""
        super().__init__()
        self._stream, self._states = stream, states
        self._spacing = max(MIN_SPACING, stream.seek(0, io.SEEK_END) // MAX_STATES)
        self._state, self._chunk, self._position = states[0].copy(), b"", 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it has random access."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to ``offset`` from the start or from here; the end is not known."""
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("a compressed file's end is not known")
        self._position = offset + (self._position if whence == io.SEEK_CUR else 0)
        return self._position

    def tell(self) -> int:
        """Give the position in the decompressed content."""
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed's wider buffer
        """Read some bytes; none at the end.

        Raises:
            EOFError: the file ends inside the compressed content.
            zlib.error: it is damaged.
        """
        start = self._state.position - len(self._chunk)
        nearest = next(s for s in reversed(self._states) if s.position <= self._position)
        if self._position < start or nearest.position > self._state.position:
            self._state, self._chunk = nearest.copy(), b""
        while self._state.position <= self._position:
            if not self._advance():
                return 0
        part = self._chunk[len(self._chunk) - (self._state.position - self._position) :][: len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def check_rest(self) -> None:
        """Read on to the end, where the checksum is."""
        while self._advance():
            pass

    def _advance(self) -> bool:
        """Decompress the next chunk, possibly to nothing; False at the end."""
        state = self._state
        self._stream.seek(state.offset)
        data = self._stream.read(CHUNK)
        if not state.started:
            data = data if data.strip(b"\0") else b""  # tape blocks may fill up a finished stream
        if not data:
            if state.started:
                raise EOFError("it ends too early")
            return False
        self._chunk = state.decompressor.decompress(data)
        state.position += len(self._chunk)
        state.offset += len(data) - len(state.decompressor.unused_data)
        state.started = not state.decompressor.eof
        if not state.started:
            state.decompressor = zlib.decompressobj(GZIP_WINDOW)
        if state.position >= self._states[-1].position + self._spacing:
            self._states.append(state.copy())
        return True
