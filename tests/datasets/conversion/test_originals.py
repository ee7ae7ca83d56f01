"""Originals: found by name, read alike from folders and archives, and compared with the published classes."""

from __future__ import annotations

import gzip
import io
import pickle
import random
import re
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite_bench.datasets.conversion import originals
from lite_bench.datasets.conversion.originals import (
    Inflated,
    State,
    find_original,
    flat_specification,
    open_members,
    require_published,
)
from lite_bench.datasets.conversion.plan import Original
from lite_bench.datasets.meta_dataset.catalogue import published
from lite_bench.datasets.meta_dataset.specification import FlatSpecification
from lite_bench.harness.errors import DataError

PACKED = ("folder", "zip", "tar", "tgz")
FILES = {f"birds/{kind}/{n}.bin": random.Random(n).randbytes(3000 * n) for kind in ("wren", "auk") for n in range(5)}


def pack(files: Mapping[str, bytes], kind: str, folder: Path, stem: str) -> Path:
    """Write files as an unpacked folder or as an archive, in an order that is not theirs."""
    shuffled = random.Random(len(files)).sample(sorted(files), len(files))
    if kind == "folder":
        for name in shuffled:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(files[name])
        return folder / shuffled[0].split("/")[0]
    path = folder / stem
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for number, name in enumerate(shuffled):
                archive.writestr(name, files[name], zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED)
        return path
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in shuffled:
            tar.addfile(header(name, len(files[name])), io.BytesIO(files[name]))
    path.write_bytes(gzip.compress(buffer.getvalue(), 1) if kind == "tgz" else buffer.getvalue())
    return path


def header(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    return info


@pytest.fixture(params=PACKED)
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return pack(FILES, request.param, tmp_path, f"birds.{request.param}")


def test_the_first_name_that_exists_is_found(tmp_path: Path) -> None:
    original = Original(("images", "a-*.tar", "a.zip"), "https://example.org/a")
    (tmp_path / "a.zip").touch()
    assert find_original(tmp_path, original, "birds") == tmp_path / "a.zip"
    (tmp_path / "a-2.tar").touch()
    (tmp_path / "a-1.tar").touch()
    assert find_original(tmp_path, original, "birds") == tmp_path / "a-1.tar"
    (tmp_path / "images").mkdir()
    assert find_original(tmp_path, original, "birds") == tmp_path / "images"


@pytest.mark.parametrize(("note", "end"), [("", "a"), ("fill in the form", r"a \(fill in the form\)")])
def test_a_missing_original_is_named_with_its_page(tmp_path: Path, note: str, end: str) -> None:
    original = Original(("images", "a.zip"), "https://example.org/a", note)
    message = rf"^birds needs images or a.zip, which {tmp_path} does not hold; get it from https://example.org/{end}\.$"
    with pytest.raises(DataError, match=message):
        find_original(tmp_path, original, "birds")


def test_members_are_the_same_in_every_form(packed: Path) -> None:
    members = open_members(packed)
    assert {name: members.read(name) for name in members.spans} == FILES
    names = random.Random(3).sample(sorted(FILES), len(FILES))
    assert list(members.contents(names)) == [(name, FILES[name]) for name in names]
    assert list(members.contents([])) == []
    assert [name for name, _ in members.matching(r"wren/\d")] == sorted(name for name in FILES if "wren" in name)


def test_a_part_of_the_members_travels_to_another_process(packed: Path) -> None:
    members = open_members(packed)
    part = pickle.loads(pickle.dumps(members.only(["birds/auk/3.bin"])))
    assert list(part.spans) == ["birds/auk/3.bin"]
    assert part.read("birds/auk/3.bin") == FILES["birds/auk/3.bin"]
    with pytest.raises(DataError, match=r"The file .*birds/auk/7.bin.* is missing; download or unpack birds.* again"):
        members.only(["birds/auk/7.bin"])


def test_other_entries_are_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (("./a", tarfile.DIRTYPE), ("./a/link.jpg", tarfile.SYMTYPE)):
            info = header(name, 0)
            info.type = kind
            tar.addfile(info)
        for name in ("./a/1.jpg", "./a/._1.jpg", "./__MACOSX/a/2.jpg"):
            tar.addfile(header(name, 0), io.BytesIO())
    members = open_members(tmp_path / "a.tar")
    assert [name for name, _ in members.matching(r"\.jpg$")] == ["a/1.jpg"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.mkdir("a/")
        archive.writestr("a/1.jpg", b"")
    assert list(open_members(tmp_path / "a.zip").spans) == ["a/1.jpg"]


@pytest.mark.parametrize("outer", ["folder", "tar"])
def test_a_tar_inside_is_read_in_place(tmp_path: Path, outer: str) -> None:
    inner = pack(FILES, "tar", tmp_path / "inner", "birds.tar").read_bytes()
    members = open_members(pack({"all/birds.tar": inner, "all/x": b"x" * 700}, outer, tmp_path, "all.tar"))
    nested = members.nested("all/birds.tar")
    assert dict(nested.contents(sorted(FILES))) == FILES
    assert nested.place("birds/auk/1.bin").startswith("birds/auk/1.bin in ")
    with pytest.raises(DataError, match=r"all/x.* cannot be read .*; download or unpack it again"):
        members.nested("all/x")


@pytest.mark.parametrize("outer", ["zip", "tgz"])
def test_a_tar_inside_a_compressed_archive_must_be_unpacked(tmp_path: Path, outer: str) -> None:
    members = open_members(pack({"all/birds.tar": b""}, outer, tmp_path, f"all.{outer}"))
    with pytest.raises(
        DataError, match=rf"birds.tar in .* cannot be read in place; unpack {tmp_path}/all.{outer} first"
    ):
        members.nested("all/birds.tar")


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.8, 0.99, 1.0])
def test_a_truncated_archive_is_named(tmp_path: Path, kind: str, share: float) -> None:
    path = pack(FILES, kind, tmp_path, f"birds.{kind}")
    data = path.read_bytes()
    end = len(data.rstrip(b"\0")) if kind == "tar" else len(data) - 1
    path.write_bytes(data[: int(share * end)])
    with pytest.raises(DataError, match=rf"^The original {path} cannot be read \(.+\); download or unpack it again\.$"):
        open_members(path)


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_a_changed_byte_is_noticed(tmp_path: Path, kind: str) -> None:
    path = pack(FILES, kind, tmp_path, f"birds.{kind}")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"The original .*{path} cannot be read \(.+\); download or unpack it again"):
        list(open_members(path).contents(FILES))


@pytest.mark.parametrize("kind", PACKED)
def test_an_archive_that_vanished_is_named(tmp_path: Path, kind: str) -> None:
    path = pack(FILES, kind, tmp_path, f"birds.{kind}")
    members = open_members(path)
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"The original .*birds.* cannot be read \(No such file or directory\)"):
        members.read("birds/auk/1.bin")
    with pytest.raises(DataError, match="No such file or directory"):
        open_members(path)


def test_a_zip_that_was_replaced_meanwhile_is_noticed(tmp_path: Path) -> None:
    path = pack(FILES, "zip", tmp_path, "birds.zip")
    members = open_members(path)
    path.write_bytes(b"\0" + path.read_bytes())
    with pytest.raises(DataError, match="no file begins at its position"):
        members.read("birds/auk/1.bin")


@pytest.mark.parametrize("field", ["flag_bits", "compress_type"])
def test_an_unusual_zip_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    path = pack(FILES, "zip", tmp_path, "birds.zip")
    read = zipfile.ZipFile.infolist

    def odd(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
        infos = read(archive)
        setattr(infos[0], field, 1 if field == "flag_bits" else zipfile.ZIP_LZMA)
        return infos

    monkeypatch.setattr(zipfile.ZipFile, "infolist", odd)
    with pytest.raises(DataError, match="is encrypted or compressed in an unusual way"):
        open_members(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("<html>Too many requests</html>" * 100)
    with pytest.raises(DataError, match=r"The original .*/a.tar cannot be read \(.*\); download or unpack it again"):
        open_members(tmp_path / "a.tar")


@settings(deadline=None, max_examples=40)
@given(
    parts=st.lists(st.tuples(st.integers(0, 300_000), st.booleans()), min_size=1, max_size=4),
    reads=st.lists(st.tuples(st.integers(0, 700_000), st.integers(0, 90_000)), max_size=15),
    padding=st.sampled_from([0, 1, 70_000]),
    spacing=st.sampled_from([1, 50_000, 1 << 22]),
)
def test_gzip_files_have_random_access(
    parts: list[tuple[int, bool]], reads: list[tuple[int, int]], padding: int, spacing: int
) -> None:
    generator = random.Random(0)
    contents = [generator.randbytes(size) if dense else bytes(size) for size, dense in parts]
    whole = b"".join(contents)
    stream = io.BytesIO(b"".join(gzip.compress(part, 1) for part in contents) + bytes(padding))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(originals, "MIN_SPACING", spacing)
        patch.setattr(originals, "MAX_STATES", 1 << 30)
        states = [State()]
        for _ in range(2):  # the second time with the states of the first
            inflated = io.BufferedReader(Inflated(stream, states))
            for offset, size in reads:
                assert inflated.seek(offset) == offset
                assert inflated.read(size) == whole[offset : offset + size]
            inflated.seek(0)
            assert inflated.read() == whole


def test_reading_a_gzip_file_from_its_end_is_refused() -> None:
    with pytest.raises(io.UnsupportedOperation, match="end is not known"):
        Inflated(io.BytesIO(gzip.compress(b"abc")), [State()]).seek(0, io.SEEK_END)


def test_few_states_are_kept_of_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(originals, "MIN_SPACING", 1)
    monkeypatch.setattr(originals, "MAX_STATES", 5)
    (tmp_path / "a.gz").write_bytes(gzip.compress(random.Random(0).randbytes(1_000_000), 1))
    states = [State()]
    with (tmp_path / "a.gz").open("rb") as stream:
        Inflated(stream, states).check_rest()
    assert 4 <= len(states) <= 6


def test_classes_get_the_published_order(tmp_path: Path) -> None:
    found = flat_specification("dtd", {"banded": 2, "gauzy": 3, "braided": 1, "chequered": 4, "grid": 0}, tmp_path)
    assert found.class_names == ("chequered", "braided", "gauzy", "banded")
    assert found.images == (4, 1, 3, 2)
    assert found.splits == {"train": range(2), "validation": range(2, 3), "test": range(3, 4)}


def test_unknown_or_no_classes_are_named(tmp_path: Path) -> None:
    foreign = dict.fromkeys("abcde", 1) | {"banded": 1}
    message = rf"^{tmp_path} holds images of a, b, c and 2 more, which dtd does not have; remove them\.$"
    with pytest.raises(DataError, match=message):
        flat_specification("dtd", foreign, tmp_path)
    with pytest.raises(DataError, match=rf"{tmp_path} holds no images of dtd's classes; download or unpack it again"):
        flat_specification("dtd", {"banded": 0}, tmp_path)


@pytest.mark.parametrize("source", ["dtd", "omniglot", "mnist", "ilsvrc_2012"])
def test_the_published_classes_agree_with_themselves(source: str, tmp_path: Path) -> None:
    require_published(published(source), tmp_path)


def test_differences_from_the_published_classes_are_listed(tmp_path: Path) -> None:
    known = published("dtd")
    assert isinstance(known, FlatSpecification)
    short = replace(known, images=(119, 0, *known.images[2:]))
    message = (
        rf"^{tmp_path} is not the published dtd: class 'chequered' has 119 images, not 120, "
        r"class 'braided' has 0 images, not 120; download or unpack it again\.$"
    )
    with pytest.raises(DataError, match=message):
        require_published(short, tmp_path)
    renamed = replace(known, class_names=("dotty", *known.class_names[1:]))
    with pytest.raises(DataError, match="'chequered' has 0 images, not 120, class 'dotty' is not one of the published"):
        require_published(renamed, tmp_path)
    with pytest.raises(DataError, match=re.escape("and 44 more; download")):
        require_published(replace(known, images=(1,) * 47), tmp_path)
    for other in (
        replace(known, class_names=(*known.class_names[1::-1], *known.class_names[2:])),
        replace(known, classes_per_split={"train": 47}),
    ):
        with pytest.raises(DataError, match="the published dtd: its classes are in another order or in other splits"):
            require_published(other, tmp_path)
