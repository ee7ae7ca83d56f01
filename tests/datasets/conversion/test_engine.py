"""The conversion engine: kills, full disks, rivals, leftovers and foreign folders; and the table of converters."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lite_bench.datasets.conversion.dtd import DTD
from lite_bench.datasets.conversion.engine import JOURNAL, LOCK, ConversionReport, convert
from lite_bench.datasets.conversion.jpeg import jpeg_bytes
from lite_bench.datasets.conversion.plan import ClassPlan, Conversion, Converter, Original
from lite_bench.datasets.conversion.registry import CONVERTERS, converter
from lite_bench.datasets.meta_dataset.catalogue import published_sources
from lite_bench.datasets.meta_dataset.specification import FlatSpecification
from lite_bench.datasets.meta_dataset.specification_files import SPECIFICATION, read_specification
from lite_bench.datasets.tfrecords.examples import parse_example
from lite_bench.datasets.tfrecords.framing import scan, unframe
from lite_bench.harness.errors import DataError, RunError, UnknownNameError, UsageError
from tests.datasets.conversion.test_jpeg import file_of, picture
from tests.datasets.conversion.test_originals import pack

COUNTS = (3, 5, 1, 4, 2)
PER_TEXTURE = 12
TEXTURES = ("chequered", "braided", "interlaced", "gauzy", "grid", "banded", "bumpy")


def records(folder: Path, class_id: int) -> list[tuple[bytes, int]]:
    """Read image and label of every record of a class, checksums verified."""
    path = folder / f"{class_id}.tfrecords"
    starts, data = scan(path, check=True), path.read_bytes()
    examples = [parse_example(unframe(data[a:b])) for a, b in itertools.pairwise(starts)]
    assert all(example.keys() == {"image", "label"} for example in examples)
    return [(example["image"][0], int(example["label"][0])) for example in examples]


def images(class_id: int, count: int) -> list[bytes]:
    return [np.random.default_rng((class_id, n)).bytes(500 + n) for n in range(count)]


@dataclass(frozen=True)
class Invented:
    """Plans a source of invented bytes; ``replaced`` classes get their images from elsewhere."""

    source: str = "invented"
    counts: tuple[int, ...] = COUNTS
    replaced: dict[int, Callable[[], Iterable[bytes]]] = field(default_factory=dict)
    originals: tuple[Original, ...] = ()

    def plan(self, folder: Path) -> Conversion:
        assert folder.is_dir()
        names = tuple(f"class {i}" for i in range(len(self.counts)))
        classes = [ClassPlan(i, n, self.replaced.get(i, partial(images, i, n))) for i, n in enumerate(self.counts)]
        return Conversion(FlatSpecification(self.source, names, self.counts, {"train": len(names)}), classes)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of records, not there yet, always of the same name."""
    return tmp_path / "new" / "records"


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """The files of an uninterrupted conversion."""
    convert(Invented(), tmp_path, tmp_path / "whole" / "records")
    return contents(tmp_path / "whole" / "records")


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Originals of a small source, in the folder of which a process can be started anew."""
    place = tmp_path_factory.mktemp("textures")
    files = {
        f"dtd/images/{name}/{name}_{n:04d}.jpg": jpeg_bytes(picture("RGB", (64, 48), n))
        for name in TEXTURES
        for n in range(PER_TEXTURE)
    }
    # A grey JPEG needs re-encoding: a class takes long enough to be killed in the middle.
    large = file_of(picture("L", (1600, 1200)), "JPEG")
    files |= {name: large for number, name in enumerate(files) if number % 2}
    pack(files, "tgz", place, "dtd-r1.0.1.tar.gz")
    return place


def test_records_specification_and_report(tmp_path: Path, folder: Path) -> None:
    steps: list[tuple[int, int]] = []
    report = convert(Invented(), tmp_path, folder, progress=lambda done, total: steps.append((done, total)))
    for class_id, count in enumerate(COUNTS):
        assert records(folder, class_id) == [(image, class_id) for image in images(class_id, count)]
    assert read_specification(folder) == Invented().plan(tmp_path).specification
    size = sum(len(data) for name, data in contents(folder).items() if name.endswith(".tfrecords"))
    assert report == ConversionReport("invented", folder, 5, 15, size, 5)
    assert not report.was_complete
    assert steps == [(0, 15), (3, 15), (8, 15), (9, 15), (13, 15), (15, 15)]
    assert set(contents(folder)) == {SPECIFICATION, JOURNAL, LOCK, *(f"{i}.tfrecords" for i in range(5))}


def test_a_complete_folder_is_left_alone_even_without_originals(tmp_path: Path, folder: Path) -> None:
    first = convert(Invented(), tmp_path, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = convert(Invented(), tmp_path / "gone", folder)
    assert again.was_complete
    assert (again.images, again.n_bytes) == (first.images, first.n_bytes)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("after", range(6))
def test_going_on_after_an_interruption(tmp_path: Path, folder: Path, whole: dict[str, bytes], after: int) -> None:
    def interrupt(done: int, total: int) -> None:
        del total
        if done >= sum(COUNTS[:after]):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(Invented(), tmp_path, folder, progress=interrupt)
    assert not (folder / SPECIFICATION).exists()
    steps: list[int] = []
    report = convert(Invented(), tmp_path, folder, progress=lambda done, total: steps.append(done))
    assert report.written == 5 - after
    assert steps[0] == sum(COUNTS[:after])
    assert contents(folder) == whole


def test_leftovers_and_classes_not_accounted_for_are_written_again(
    tmp_path: Path, folder: Path, whole: dict[str, bytes]
) -> None:
    convert(Invented(), tmp_path, folder)
    (folder / SPECIFICATION).unlink()
    lines = (folder / JOURNAL).read_text().splitlines()
    # Killed while the line of class 4 was appended; the file of class 1 was cut short by a power failure.
    (folder / JOURNAL).write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:7])
    (folder / "4.tfrecords").write_bytes(b"other bytes")
    os.truncate(folder / "1.tfrecords", 10)
    for name in (".2.tfrecords.0123456789ab.tmp", f".{SPECIFICATION}.0123456789ab.tmp"):
        (folder / name).write_bytes(b"half")
    assert convert(Invented(), tmp_path, folder).written == 2
    assert contents(folder) == whole


def test_a_class_deleted_from_a_complete_folder_is_written_again(
    tmp_path: Path, folder: Path, whole: dict[str, bytes]
) -> None:
    convert(Invented(), tmp_path, folder)
    (folder / "2.tfrecords").unlink()
    assert convert(Invented(), tmp_path, folder).written == 1
    assert contents(folder) == whole


@pytest.mark.parametrize("workers", [2, 3])
def test_several_processes_write_the_same_bytes(textures: Path, tmp_path: Path, workers: int) -> None:
    converter = DTD(check_published=False)
    one, several = tmp_path / "1" / "dtd", tmp_path / "2" / "dtd"
    assert convert(converter, textures, one).written == len(TEXTURES)
    steps: list[int] = []
    convert(converter, textures, several, workers=workers, progress=lambda done, total: steps.append(done))
    assert contents(one) == contents(several)
    assert steps == list(range(0, PER_TEXTURE * len(TEXTURES) + 1, PER_TEXTURE))


CONVERTING = """
import multiprocessing, sys
from pathlib import Path
from lite_bench.datasets.conversion import engine
from lite_bench.datasets.conversion.dtd import DTD

def tell(done, total):
    print(done, *(process.pid for process in multiprocessing.active_children()), flush=True)

if __name__ == "__main__":
    originals, output, workers = sys.argv[1:]
    engine.convert(DTD(check_published=False), Path(originals), Path(output), workers=int(workers), progress=tell)
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_conversion_goes_on_to_the_same_bytes(textures: Path, tmp_path: Path, workers: int) -> None:
    plain, killed = tmp_path / "1" / "dtd", tmp_path / "2" / "dtd"
    convert(DTD(check_published=False), textures, plain)
    script = tmp_path / "converting.py"
    script.write_text(CONVERTING)
    command = [sys.executable, str(script), str(textures), str(killed), str(workers)]
    children: list[int] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            done, *children = map(int, line.split())
            if done >= 2 * PER_TEXTURE:
                time.sleep(0.03)  # into the middle of a class
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert len(children) == (workers if workers > 1 else 0)
    deadline = time.monotonic() + 10
    while any(map(is_running, children)):
        assert time.monotonic() < deadline, "the worker processes outlive the one that was killed"
        time.sleep(0.02)
    assert not (killed / SPECIFICATION).exists()
    report = convert(DTD(check_published=False), textures, killed)
    assert 1 <= report.written <= len(TEXTURES) - 2
    assert contents(killed) == contents(plain)


def test_a_second_conversion_at_the_same_time_is_refused(tmp_path: Path, folder: Path) -> None:
    refusals = []

    def rival(done: int, total: int) -> None:
        with pytest.raises(RunError, match=rf"^Another process is converting to {folder} at this moment; wait for it"):
            convert(Invented(), tmp_path, folder)
        refusals.append((done, total))

    convert(Invented(), tmp_path, folder, progress=rival)
    assert len(refusals) == 6


def test_a_full_disk_is_one_sentence_and_can_be_resumed(
    tmp_path: Path, folder: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fill_up(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 3:  # the journal's, and two classes'
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill_up)
        with pytest.raises(RunError, match=rf"^The disk is full: could not write {folder}/2.tfrecords .*, then resume"):
            convert(Invented(), tmp_path, folder)
    assert not list(folder.glob("*.tmp"))
    assert convert(Invented(), tmp_path, folder).written == 3
    assert contents(folder) == whole


def test_a_disk_that_fills_up_within_a_class(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real full device, which takes what is buffered and fails when it is brought to disk."""
    opening = Path.open

    def on_full_device(path: Path, mode: str, **options: Any) -> Any:
        return opening(Path("/dev/full") if ".tfrecords." in path.name else path, mode.replace("x", "w"), **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", on_full_device)
        with pytest.raises(RunError, match=rf"The disk is full: could not write {folder}/0.tfrecords"):
            convert(Invented(), tmp_path, folder)
    assert set(contents(folder)) == {JOURNAL, LOCK}


@pytest.mark.parametrize(("given", "says"), [(4, "only 4 of 5"), (0, "only 0 of 5"), (6, "more than 5")])
def test_another_number_of_images_than_planned(tmp_path: Path, folder: Path, given: int, says: str) -> None:
    invented = Invented(replaced={1: partial(images, 1, given)})
    with pytest.raises(DataError, match=f"^The originals of class 1 give {says} images; leave them unchanged"):
        convert(invented, tmp_path, folder)
    assert set(contents(folder)) == {JOURNAL, LOCK, "0.tfrecords"}


def test_an_original_that_cannot_be_read(tmp_path: Path, folder: Path) -> None:
    invented = Invented(replaced={1: lambda: [(tmp_path / "gone").read_bytes()]})
    with pytest.raises(DataError, match=r"^An original of class 1 cannot be read \(No such file or directory\); check"):
        convert(invented, tmp_path, folder)


def test_a_damaged_image_in_a_worker_process(textures: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"The image dtd/images/grid/grid_0003.jpg in .*dtd-r1.0.1.tar.gz is damaged"):
        convert(_Damaging(), textures, tmp_path / "dtd", workers=2)
    assert not list((tmp_path / "dtd").glob("*.tmp"))
    assert convert(DTD(check_published=False), textures, tmp_path / "dtd").written < len(TEXTURES)


class _Damaging(DTD):
    """DTD with one image cut short, in a class that is not the first."""

    def __init__(self) -> None:
        super().__init__(check_published=False)

    def plan(self, folder: Path) -> Conversion:
        conversion = super().plan(folder)
        read: Any = conversion.classes[4].images
        members, *others = read.args
        name = "dtd/images/grid/grid_0003.jpg"
        span = members.spans[name]
        members.spans[name] = span._replace(size=span.size // 2)
        classes = list(conversion.classes)
        classes[4] = ClassPlan(4, classes[4].count, partial(read.func, members, *others))
        return Conversion(conversion.specification, classes)


def test_a_worker_process_that_is_killed(tmp_path: Path, folder: Path) -> None:
    killed = Invented(counts=(1, 1), replaced={0: partial(os._exit, 9), 1: partial(os._exit, 9)})
    with pytest.raises(RunError, match=rf"^A process converting to {folder} was killed, perhaps for want of memory; "):
        convert(killed, tmp_path, folder, workers=2)


def test_records_of_another_source_are_refused(tmp_path: Path, folder: Path) -> None:
    convert(Invented(source="textures"), tmp_path, folder)
    with pytest.raises(RunError, match=f"^{folder} holds the records of textures, not of invented; name another"):
        convert(Invented(), tmp_path, folder)


@pytest.mark.parametrize("other", [Invented(counts=(3, 5, 1, 4, 3)), Invented(source="textures")])
def test_a_part_of_another_conversion_is_refused(tmp_path: Path, folder: Path, other: Invented) -> None:
    convert(other, tmp_path, folder)
    (folder / SPECIFICATION).unlink()
    before = contents(folder)
    message = rf"^{folder} holds a part of another conversion \({other.source}, other classes or counts\); delete it or"
    with pytest.raises(RunError, match=message):
        convert(Invented(), tmp_path, folder)
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["notes.txt", "0.tfrecords"])
def test_a_folder_with_other_files_is_refused(tmp_path: Path, folder: Path, name: str) -> None:
    folder.mkdir(parents=True)
    (folder / name).write_text("mine")
    with pytest.raises(RunError, match=f"^{folder} holds {name}, which no conversion wrote; name an empty or"):
        convert(Invented(), tmp_path, folder)
    assert (folder / name).read_text() == "mine"


def test_records_that_other_software_converted_are_complete(tmp_path: Path, folder: Path) -> None:
    convert(Invented(), tmp_path, folder)
    (folder / JOURNAL).unlink()
    assert convert(Invented(), tmp_path / "gone", folder).was_complete
    (folder / "3.tfrecords").unlink()
    with pytest.raises(RunError, match=r"has a dataset_spec.json that other software wrote, but not 3.tfrecords; name"):
        convert(Invented(), tmp_path, folder)


@pytest.mark.parametrize("text", ["", "no json\n", "[1]\n", '{"source": "invented"}\n{"bytes": 3}\n'])
def test_a_damaged_journal_is_named(tmp_path: Path, folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / JOURNAL).write_text(text)
    with pytest.raises(RunError, match=f"^{folder}/{JOURNAL} is not a journal of a conversion; delete {folder} and"):
        convert(Invented(), tmp_path, folder)


def test_a_journal_that_cannot_be_read_is_named(tmp_path: Path, folder: Path) -> None:
    (folder / JOURNAL).mkdir(parents=True)
    with pytest.raises(RunError, match=rf"^{folder}/{JOURNAL} cannot be read \(Is a directory\); check its"):
        convert(Invented(), tmp_path, folder)


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=f"Could not write {tmp_path}/file: File exists"):
        convert(Invented(), tmp_path, tmp_path / "file")


def test_too_few_workers(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match="workers=0 is too small; give at least 1"):
        convert(Invented(), tmp_path, folder, workers=0)
    assert not folder.exists()


def test_a_plan_that_contradicts_itself_is_a_programming_error(tmp_path: Path, folder: Path) -> None:
    class Contradicting(Invented):
        def plan(self, folder: Path) -> Conversion:
            conversion = super().plan(folder)
            return Conversion(conversion.specification, conversion.classes[::-1])

    with pytest.raises(ValueError, match="invented: a plan's classes must be those of its specification"):
        convert(Contradicting(), tmp_path, folder)


def test_the_journal_says_what_is_there(tmp_path: Path, folder: Path) -> None:
    convert(Invented(), tmp_path, folder)
    head, *lines = map(json.loads, (folder / JOURNAL).read_text().splitlines())
    assert head["source"] == "invented"
    assert lines == [{"class": i, "bytes": (folder / f"{i}.tfrecords").stat().st_size} for i in range(5)]


@pytest.mark.parametrize("name", sorted(CONVERTERS))
def test_every_source_has_a_converter(name: str, tmp_path: Path) -> None:
    made: Converter = converter(name)
    assert made.source == name
    assert made.originals
    assert all(original.names and original.page.startswith("http") for original in made.originals)
    with pytest.raises(DataError, match=f"^{name} needs "):
        made.plan(tmp_path)


def test_the_table_of_converters_is_that_of_the_catalogue() -> None:
    assert set(CONVERTERS) == set(published_sources()) - {"ilsvrc_2012_lite"}
    with pytest.raises(UnknownNameError, match=r"no source to convert called 'airplane'.*Known: aircraft, "):
        converter("airplane")


def test_converting_needs_no_torch() -> None:
    program = (
        "import sys; from lite_bench.datasets.conversion import engine, registry; "
        "[registry.converter(name) for name in registry.CONVERTERS]; "
        "assert not {'torch', 'tensorflow', 'tensorflow_datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
