"""What `lite-bench data` does for ORBIT, frame size by frame size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from lite_bench.datasets.orbit.folders import list_folders, present_splits, unfinished
from lite_bench.datasets.orbit.frames import read_frame
from lite_bench.datasets.orbit.layout import (
    ANNOTATIONS_SOURCE,
    MARKER,
    VARIABLE,
    found_roots,
    is_seen,
    root_name,
    search_root,
)
from lite_bench.datasets.orbit.preparation import RELEASES, PreparationReport, prepare_root
from lite_bench.datasets.orbit.published import SPLITS, published_users
from lite_bench.datasets.orbit.scan import open_dataset, scan
from lite_bench.datasets.orbit.standin import write_standin
from lite_bench.datasets.orbit.videos import Video
from lite_bench.harness.core import Split
from lite_bench.harness.data import IndexedSource, Notify, SourceStatus, State
from lite_bench.harness.errors import DataError, UsageError

PREFIX = "orbit_"
STANDIN_SIZE = 84
MOST_FRAMES = 20
"""Broken frames that are listed."""


class OrbitData:
    """Looks after the data of ORBIT: a source for each frame size that can be prepared or is there."""

    def status(self, data_dir: Path | None) -> list[SourceStatus]:
        """See `DataKeeper.status`; no frames are listed."""
        return [source_status(size, data_dir) for size in _sizes(data_dir)]

    def preparable(self) -> Mapping[str, str]:
        """See `DataKeeper.preparable`."""
        return {name: release.needs for name, release in RELEASES.items()}

    def prepare(self, source: str, originals: Path | None, output: Path, *, workers: int, notify: Notify) -> str:
        """See `DataKeeper.prepare`; for ``orbit_84`` the original frames may be packed or unpacked."""
        release = RELEASES[source]
        if originals is None:
            raise UsageError(f"Preparing {source} needs --from FOLDER with {release.needs}.")

        def progress(done: int, total: int) -> None:
            notify(source, done, total, "videos")

        report = prepare_root(release, originals.expanduser(), output.expanduser(), workers=workers, progress=progress)
        return _summary(source, report)

    def verify(
        self, sources: Sequence[str], data_dir: Path | None, *, decode: bool, workers: int, notify: Notify
    ) -> dict[str, list[str]]:
        """See `DataKeeper.verify`; a source that was asked for and is not there is a problem, and so is other data."""
        found: dict[str, list[str]] = {}
        for size in _chosen(sources, data_dir):
            source = f"{PREFIX}{size}"
            root = search_root(size, data_dir).root
            if root is not None:
                found[source] = root_problems(root, size, decode=decode, workers=workers, notify=notify)
                continue
            status = source_status(size, data_dir)
            if sources or (status.problem and not found):
                found[source] = [f"{status.problem or f'{source} was not found;'} {status.next_step}"]
        return found

    def index(self, sources: Sequence[str], data_dir: Path | None, *, notify: Notify) -> list[IndexedSource]:
        """See `DataKeeper.index`; files are videos and records are frames.

        Raises:
            DataError: something is wrong with a source.
        """
        indexed = []
        for size in _chosen(sources, data_dir):
            if (root := search_root(size, data_dir).root) is None:
                continue
            source = f"{PREFIX}{size}"
            notify(source, 0, 1, "listing frames")
            videos = list(open_dataset(root).videos())
            notify(source, 1, 1, f"{len(videos)} videos")
            indexed.append(IndexedSource(source, len(videos), sum(video.n_frames for video in videos)))
        return indexed

    def synthesise(
        self, output: Path, *, seed: int, workers: int, notify: Notify, image_size: int | None = None
    ) -> str:
        """See `DataKeeper.synthesise`; frames have 84 pixels unless ``image_size`` says otherwise."""
        size = STANDIN_SIZE if image_size is None else image_size

        def progress(done: int, total: int) -> None:
            notify("stand-in", done, total, "videos")

        root = output.expanduser() / root_name(size)
        write_standin(root, image_size=size, seed=seed, workers=workers, progress=progress)
        return f"--data-dir {output} --image-size {size}"


def _sizes(data_dir: Path | None) -> list[int]:
    """List the frame sizes that can be prepared, then those that are there besides."""
    return list(dict.fromkeys([*(release.image_size for release in RELEASES.values()), *found_roots(data_dir)]))


def _chosen(sources: Sequence[str], data_dir: Path | None) -> Iterator[int]:
    return (size for size in _sizes(data_dir) if not sources or f"{PREFIX}{size}" in sources)


def _summary(source: str, report: PreparationReport) -> str:
    verb = f"Prepared {source} in {report.root}" if report.written else f"{report.root} is complete already"
    notes = f" There is no {' and no '.join(report.absent)} split." if report.absent else ""
    if report.unannotated:
        missing = ", ".join(report.unannotated)
        notes += (
            f" Version 2022 needs annotations, which are not there for {missing}: put {ANNOTATIONS_SOURCE} beside the "
            "originals and repeat this."
        )
    return f"{verb}: {report.videos} videos.{notes}"


# --- status


def source_status(image_size: int, data_dir: Path | None) -> SourceStatus:
    """Say where the frames of a size are, by looking at folders alone."""
    source = f"{PREFIX}{image_size}"
    search = search_root(image_size, data_dir)
    release = RELEASES.get(source)
    command = f"lite-bench data prepare {source} --from DOWNLOADS --output-dir DATA"
    step = f"{command} ({release.needs})" if release else "Write or copy it again."
    if search.root is None:
        # That there are frames of another size is no problem of this source.
        problem = "" if found_roots(data_dir) else search.problem
        step = f"{step.rstrip('.')}; if you have these frames, name their folder by --data-dir or {VARIABLE}"
        return SourceStatus(source, SPLITS, "missing", None, search.looked, problem, step)
    if problem := unfinished(search.root):
        return SourceStatus(source, SPLITS, "incomplete", search.root, search.looked, problem, step)
    found = list_folders(search.root)
    if problems := found.problems or _count_problems(search.root, found.videos):
        use = "" if found.problems else " it can be used as far as it goes;"
        step = f"`lite-bench data verify orbit --source {source}` lists all;{use} to get it anew: {step}"
        return SourceStatus(source, SPLITS, "incomplete", search.root, search.looked, problems[0], step)
    state: State = "stand-in" if (search.root / MARKER).is_file() else "found"
    return SourceStatus(source, SPLITS, state, search.root, search.looked)


def _count_problems(root: Path, videos: Sequence[str]) -> list[str]:
    """Compare the numbers of users, objects and videos of every split with those that are published."""
    problems = []
    for split in SPLITS:
        parts = [place.split("/") for place in videos if place.startswith(f"{split}/")]
        users, objects = {part[1] for part in parts}, {tuple(part[1:3]) for part in parts}
        found = (len(users), len(objects), len(parts))
        wanted = published_counts(split)
        if found != wanted:
            problems.append(f"{root / split} {_counts(found)}, and the benchmark's {_counts(wanted)}.")
    return problems


def published_counts(split: Split) -> tuple[int, int, int]:
    """Count the published users, objects and videos of a split."""
    users = published_users()[split].values()
    objects = [each for user in users for each in user]
    return len(users), len(objects), sum(each.clean + len(each.clutter) for each in objects)


def _counts(counts: tuple[int, int, int]) -> str:
    return "has {} users, {} objects and {} videos".format(*counts)


# --- verify


def root_problems(root: Path, image_size: int, *, decode: bool, workers: int, notify: Notify) -> list[str]:
    """List all that is wrong with a root, and how it differs from the published benchmark.

    Args:
        root: the folder.
        image_size: side that its frames must have.
        decode: decode every frame too.
        workers: threads to decode with.
        notify: told how far it is.
    """
    source = f"{PREFIX}{image_size}"
    notify(source, 0, 1, "listing frames")
    found = scan(root, rebuild=True)
    absent = [split for split in SPLITS if split not in present_splits(root)]
    problems = [*found.problems, *(f"{root} has no folder {split}; get {split}.zip too." for split in absent)]
    problems += [f"{root}: {difference}" for difference in found.dataset.differences]
    if decode:
        problems += frame_problems(source, list(found.dataset.videos()), image_size, workers=workers, notify=notify)
    return problems


def frame_problems(source: str, videos: Sequence[Video], image_size: int, *, workers: int, notify: Notify) -> list[str]:
    """Decode every frame in threads; gives the first 20 problems and a line that says if there are more."""

    def check(video: Video) -> list[str]:
        return list(islice(_broken(video, image_size), MOST_FRAMES + 1))

    def found() -> Iterator[str]:
        pool = ThreadPoolExecutor(workers, thread_name_prefix="verify")
        try:
            for number, problems in enumerate(pool.map(check, videos), start=1):
                yield from problems
                notify(source, number, len(videos), "videos decoded")
        finally:
            pool.shutdown(cancel_futures=True)

    problems = list(islice(found(), MOST_FRAMES + 1))
    if len(problems) > MOST_FRAMES:
        problems[MOST_FRAMES] = f"{source}: more frames are broken, which are not listed."
    return problems


def _broken(video: Video, image_size: int) -> Iterator[str]:
    for path in sorted(path for path in video.folder.glob("*.jpg") if is_seen(path.name)):
        try:
            read_frame(path, image_size)
        except DataError as error:
            yield str(error)
