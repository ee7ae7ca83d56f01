"""Running a conversion: classes side by side, and safely stopped at any instant.

A class is written under a temporary name and takes its own when it is whole and on disk; then a line in
``conversion.jsonl`` says so. ``dataset_spec.json`` comes last, so that a folder which has it is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import re
import secrets
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from lite_bench.datasets.conversion.plan import ClassPlan, Conversion, Converter
from lite_bench.datasets.meta_dataset.specification import Specification
from lite_bench.datasets.meta_dataset.specification_files import (
    FILE_PATTERN,
    SPECIFICATION,
    as_json,
    read_specification,
    write_specification,
)
from lite_bench.datasets.tfrecords.examples import encode_example
from lite_bench.datasets.tfrecords.framing import frame
from lite_bench.harness.errors import DataError, RunError, UsageError
from lite_bench.harness.files import append_line, locked, write_atomically, write_errors

JOURNAL, LOCK = "conversion.jsonl", ".conversion.lock"
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")
BUFFER_BYTES = 1 << 20

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ConversionReport:
    """What is in a folder of records after a conversion.

    Attributes:
        source: name of the source.
        folder: where its records are.
        classes: number of classes, each a file.
        images: number of images.
        n_bytes: size of all class files.
        written: number of classes written by this call; the others were there already.
    """

    source: str
    folder: Path
    classes: int
    images: int
    n_bytes: int
    written: int

    @property
    def was_complete(self) -> bool:
        """Whether there was nothing left to do."""
        return self.written == 0


def convert(
    converter: Converter,
    originals: Path,
    output: Path,
    *,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> ConversionReport:
    """Convert a source to records, or go on where an earlier call was stopped.

    The result does not depend on the number of workers or on interruptions. A folder that is complete is left
    as it is, and then the originals need not be there any more.

    Args:
        converter: knows the source's original files.
        originals: folder that holds them.
        output: folder of this one source's records; made if missing.
        workers: number of processes; with 1 the work is done in this one.
        progress: told the images converted so far and all images, at the start and after each class.

    Raises:
        DataError: an original is missing, damaged or not the published one.
        RunError: ``output`` is in use, holds something else, or cannot be written (a full disk, say); in the last
            case calling again goes on.
        UsageError: ``workers`` is less than 1.
    """
    if workers < 1:
        raise UsageError(f"workers={workers} is too small; give at least 1.")
    with write_errors(output):
        output.mkdir(parents=True, exist_ok=True)
    refusal = f"Another process is converting to {output} at this moment; wait for it or stop it."
    with locked(output / LOCK, refusal):
        if (specification := _finished(converter.source, output)) is not None:
            return _report(specification, output, written=0)
        conversion = converter.plan(originals)
        _check(conversion, converter.source)
        head = _journal_head(conversion.specification)
        sizes = _take_up(head, output)
        todo = [plan for plan in conversion.classes if plan.class_id not in sizes]
        total = sum(conversion.specification.images)
        done = total - sum(plan.count for plan in todo)
        progress(done, total)
        with contextlib.closing(_write_classes(todo, output, workers)) as written:
            for plan, size in written:
                append_line(output / JOURNAL, _journal_line(plan.class_id, size))
                sizes[plan.class_id] = size
                done += plan.count
                progress(done, total)
        _write_journal(output, head, sizes)
        _sync_folder(output)
        write_specification(conversion.specification, output)
        return _report(conversion.specification, output, written=len(todo))


def _check(conversion: Conversion, source: str) -> None:
    planned = [(plan.class_id, plan.count) for plan in conversion.classes]
    if planned != list(enumerate(conversion.specification.images)) or conversion.specification.name != source:
        raise ValueError(f"{source}: a plan's classes must be those of its specification, in order and with its counts")


def _report(specification: Specification, folder: Path, written: int) -> ConversionReport:
    sizes = [_class_file(folder, class_id).stat().st_size for class_id in range(len(specification.images))]
    images = sum(specification.images)
    return ConversionReport(specification.name, folder, len(sizes), images, sum(sizes), written)


def _class_file(folder: Path, class_id: int) -> Path:
    return folder / FILE_PATTERN.format(class_id)


def _finished(source: str, folder: Path) -> Specification | None:
    """Read the specification of a complete folder; if class files are missing again, the folder is taken up anew.

    A folder that other software converted is complete too, as long as no file is missing.
    """
    if not (folder / SPECIFICATION).exists():
        return None
    specification = read_specification(folder)
    if specification.name != source:
        raise RunError(f"{folder} holds the records of {specification.name}, not of {source}; name another folder.")
    class_ids = range(len(specification.images))
    if (folder / JOURNAL).exists():
        _, sizes = _read_journal(folder)
        missing = [i for i in class_ids if not _has_size(_class_file(folder, i), sizes.get(i))]
    else:
        missing = [i for i in class_ids if not _class_file(folder, i).is_file()]
        if missing:
            raise RunError(
                f"{folder} has a {SPECIFICATION} that other software wrote, but not {FILE_PATTERN.format(missing[0])}; "
                "name another folder or delete this one."
            )
    return None if missing else specification


def _has_size(path: Path, size: int | None) -> bool:
    return path.is_file() and path.stat().st_size == size


def _take_up(head: dict[str, str], folder: Path) -> dict[int, int]:
    """Make ``folder`` ready to be written to, and give the sizes of classes that need not be written again."""
    sizes: dict[int, int] = {}
    known = (folder / JOURNAL).exists()
    if known:
        found, sizes = _read_journal(folder)
        if found != head:
            raise RunError(
                f"{folder} holds a part of another conversion ({found.get('source')}, other classes or counts); "
                "delete it or name another folder."
            )
    _remove_leftovers(folder, known=known)
    kept = {i: size for i, size in sizes.items() if _has_size(_class_file(folder, i), size)}
    _write_journal(folder, head, kept)
    return kept


def _remove_leftovers(folder: Path, *, known: bool) -> None:
    """Remove what a killed conversion left; refuse a folder with files when none has been ``known`` to write here."""
    with write_errors(folder):
        for path in sorted(folder.iterdir()):
            if TEMPORARY.fullmatch(path.name) or path.name == SPECIFICATION:
                path.unlink()
            elif not known and path.name != LOCK:
                raise RunError(f"{folder} holds {path.name}, which no conversion wrote; name an empty or new folder.")


def _journal_head(specification: Specification) -> dict[str, str]:
    """Say what is converted: classes of the same names, ids and counts make the same head."""
    content = json.dumps(as_json(specification), sort_keys=True)
    return {"source": specification.name, "plan": hashlib.sha256(content.encode()).hexdigest()}


def _journal_line(class_id: int, size: int) -> str:
    return json.dumps({"class": class_id, "bytes": size})


def _write_journal(folder: Path, head: dict[str, str], sizes: dict[int, int]) -> None:
    lines = [json.dumps(head), *(_journal_line(class_id, size) for class_id, size in sorted(sizes.items()))]
    write_atomically(folder / JOURNAL, "\n".join(lines) + "\n")


def _read_journal(folder: Path) -> tuple[dict[str, Any], dict[int, int]]:
    """Read what is converted here, and the sizes of finished classes; a torn last line is left out."""
    path = folder / JOURNAL
    sizes: dict[int, int] = {}
    try:
        head, *lines = path.read_text(encoding="utf-8").split("\n")
        found: dict[str, Any] = dict(json.loads(head))
        for line in lines[:-1]:
            entry = json.loads(line)
            sizes[int(entry["class"])] = int(entry["bytes"])
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is not a journal of a conversion; delete {folder} and convert again.") from error
    return found, sizes


def _sync_folder(folder: Path) -> None:
    """Bring the names of the class files to disk before the specification promises them."""
    with write_errors(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_classes(
    todo: Sequence[ClassPlan], folder: Path, workers: int
) -> Generator[tuple[ClassPlan, int], None, None]:
    """Write classes and give each with its file's size as soon as it is there."""
    if workers == 1 or len(todo) <= 1:
        yield from ((plan, write_class(plan, folder)) for plan in todo)
        return
    # Forked processes would inherit locks of this one's threads; started anew they do not even import torch.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(min(workers, len(todo)), context, _start_worker, (stop,))
    try:
        # The largest first, so that at the end no worker is left alone with a large one.
        largest_first = sorted(todo, key=lambda plan: -plan.count)
        jobs = {pool.submit(write_class, plan, folder): plan for plan in largest_first}
        for job in as_completed(jobs):
            yield jobs[job], job.result()
    except BrokenProcessPool as error:
        raise RunError(
            f"A process converting to {folder} was killed, perhaps for want of memory; "
            "run it again with fewer workers, which goes on with the classes not yet there."
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


_stop: Event | None = None
"""In a worker process: whether the others have given up."""


def _start_worker(stop: Event) -> None:
    """Prepare a worker process: Ctrl-C is its parent's business, and it must not outlive its parent."""
    global _stop  # noqa: PLW0603  # the only way in which a pool's process can be given something to keep
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def write_class(plan: ClassPlan, folder: Path) -> int:
    """Write all records of one class; its file appears when it is whole and on disk.

    Returns:
        its size in bytes.

    Raises:
        DataError: its originals cannot be read or give another number of images than planned.
        RunError: the file cannot be written.
    """
    path = _class_file(folder, plan.class_id)
    temporary = folder / f".{path.name}.{secrets.token_hex(6)}.tmp"
    try:
        with write_errors(path), temporary.open("xb", buffering=BUFFER_BYTES) as stream:
            for payload in _payloads(plan):
                stream.write(frame(payload))
            stream.flush()
            os.fsync(stream.fileno())
            size = stream.tell()
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return size


def _payloads(plan: ClassPlan) -> Iterator[bytes]:
    """Encode a class's records and count them."""
    count = 0
    try:
        for count, image in enumerate(plan.images(), 1):
            if _stop is not None and _stop.is_set():
                raise RunError("The conversion was stopped.")
            if count > plan.count:
                break
            yield encode_example({"image": image, "label": plan.class_id})
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"An original of class {plan.class_id} cannot be read ({reason}); check that it is still there."
        ) from error
    if count != plan.count:
        given = f"more than {plan.count}" if count > plan.count else f"only {count} of {plan.count}"
        raise DataError(
            f"The originals of class {plan.class_id} give {given} images; leave them unchanged and convert again."
        )
