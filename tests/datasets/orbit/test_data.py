"""The data commands on trees, stand-ins and downloads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lite_bench.datasets.orbit import data as data_module
from lite_bench.datasets.orbit import differences as differences_module
from lite_bench.datasets.orbit.data import OrbitData
from lite_bench.datasets.orbit.published import SPLITS, PublishedObject, PublishedUsers
from lite_bench.harness.core import Split
from lite_bench.harness.data import SourceStatus
from lite_bench.harness.errors import DataError, UsageError
from lite_bench.harness.registry import DATA
from tests.datasets.orbit.trees import N_FRAMES, N_VIDEOS, USERS, pack, write_tree
from tests.harness.small import Shell

KEEPER = OrbitData()
VIDEOS, FRAMES = sum(N_VIDEOS.values()), sum(N_FRAMES.values())


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "orbit_benchmark_84", size=84)


def as_published(split: Split) -> dict[str, tuple[PublishedObject, ...]]:
    return {
        user: tuple(
            PublishedObject(item.replace(" ", "-"), 0, len(clean), tuple((frames, 0) for frames in clutter))
            for item, (clean, clutter) in sorted(objects.items())
        )
        for user, objects in USERS[split].items()
    }


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the tiny tree for what is published."""
    users: PublishedUsers = {split: as_published(split) for split in SPLITS}
    for module in (data_module, differences_module):
        monkeypatch.setattr(module, "published_users", lambda: users)


def silent(name: str, done: int, total: int, detail: str) -> None:
    assert 0 <= done <= total, (name, detail)


def status_of(source: str, data_dir: Path | None) -> SourceStatus:
    return next(each for each in KEEPER.status(data_dir) if each.source == source)


def problems_of(source: str, data_dir: Path, *, decode: bool = True) -> list[str]:
    return KEEPER.verify([source], data_dir, decode=decode, workers=2, notify=silent)[source]


def a_frame(root: Path) -> Path:
    return sorted((root / "test/P177").rglob("*.jpg"))[2]


def test_the_keeper_is_registered() -> None:
    assert DATA.load("orbit") is OrbitData


def test_the_data_commands_need_no_torch() -> None:
    code = "import sys, lite_bench.datasets.orbit.data; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


# --- status


def test_what_is_missing_comes_with_command_and_page(tmp_path: Path, shell: Shell) -> None:
    assert [each.source for each in KEEPER.status(None)] == ["orbit_224", "orbit_84"]
    for each in KEEPER.status(tmp_path):
        assert (each.state, each.where, each.problem) == ("missing", None, "")
        assert each.used_for == ("train", "validation", "test")
        assert each.looked[0] == tmp_path
        assert each.next_step.startswith(f"lite-bench data prepare {each.source} --from DOWNLOADS --output-dir DATA (")
        assert "https://city.figshare.com/articles/dataset/_/14294597, which states the licence" in each.next_step
        assert each.next_step.endswith(
            "if you have these frames, name their folder by --data-dir or ORBIT_BENCHMARK_ROOT"
        )
        assert each.source in KEEPER.preparable()
    _, err = shell("data", "status", "orbit", "--data-dir", tmp_path)
    assert "orbit: 0 of 2 sources found" in err


@pytest.mark.usefixtures("published")
def test_a_whole_tree_is_found(root: Path, shell: Shell) -> None:
    status = status_of("orbit_84", root)
    assert (status.state, status.where, status.problem, status.next_step) == ("found", root, "", "")
    other = status_of("orbit_224", root)
    assert (other.state, other.problem) == ("missing", "")  # that there are frames of 84 pixels is no problem of it
    out, err = shell("data", "status", "orbit", "--data-dir", root.parent, "--json")
    assert [each["state"] for each in json.loads(out)["orbit"]] == ["missing", "found"]
    out, err = shell("data", "status", "orbit", "--data-dir", root.parent)
    assert "orbit: 1 of 2 sources found" in err


def test_stand_ins_of_any_size_are_found_as_such(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "orbit_benchmark_16")
    (root / "synthetic.json").write_text("{}")
    assert [each.source for each in KEEPER.status(tmp_path)] == ["orbit_224", "orbit_84", "orbit_16"]
    assert status_of("orbit_16", tmp_path).state == "incomplete"  # not all users are there


@pytest.mark.usefixtures("published")
def test_a_stand_in_is_no_benchmark(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "orbit_benchmark_16")
    (root / "synthetic.json").write_text("{}")
    assert status_of("orbit_16", tmp_path).state == "stand-in"


@pytest.mark.usefixtures("published")
def test_status_lists_no_frames(root: Path) -> None:
    for frame in root.rglob("*.jpg"):
        frame.unlink()
    assert status_of("orbit_84", root).state == "found"


def test_other_counts_than_the_published_ones_are_incomplete(root: Path) -> None:
    status = status_of("orbit_84", root)
    assert (status.state, status.where) == ("incomplete", root)
    assert status.problem == (
        f"{root / 'train'} has 1 users, 2 objects and {N_VIDEOS['train']} videos, and the benchmark's has 44 users, "
        "278 objects and 2277 videos."
    )
    assert status.next_step.startswith(
        "`lite-bench data verify orbit --source orbit_84` lists all; it can be used as far as it goes; to get it anew: "
    )
    assert "lite-bench data prepare orbit_84" in status.next_step


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda root: shutil.rmtree(root / "validation"), "validation has 0 users, 0 objects and 0 videos"),
        (lambda root: shutil.rmtree(root / "test/P198/bag/clutter"), "has no clutter video"),
        (
            lambda root: (root / "preparation.json").write_text('{"source": "orbit_84", "finished": false}'),
            "is not finished; repeat `lite-bench data prepare orbit_84`",
        ),
    ],
)
def test_incomplete_trees_are_named(root: Path, spoil: Callable[[Path], object], problem: str) -> None:
    spoil(root)
    status = status_of("orbit_84", root)
    assert (status.state, status.where) == ("incomplete", root)
    assert problem in status.problem
    assert "lite-bench data prepare orbit_84" in status.next_step


def test_what_is_no_root_is_named(tmp_path: Path) -> None:
    (tmp_path / "P100/keys/clutter-pan").mkdir(parents=True)
    status = status_of("orbit_224", tmp_path)
    assert status.state == "missing"
    assert "holds the unfiltered ORBIT dataset" in status.problem


# --- verify and index


@pytest.mark.usefixtures("published")
def test_good_data_verifies(root: Path, shell: Shell) -> None:
    assert problems_of("orbit_84", root) == []
    out, _ = shell("data", "verify", "orbit", "--data-dir", root)
    assert out.splitlines()[1:] == ["orbit_84\tok"]


@pytest.mark.usefixtures("published")
def test_all_problems_and_differences_are_listed(root: Path, shell: Shell) -> None:
    shutil.rmtree(root / "validation")
    shutil.rmtree(root / "test/P198/bag/clutter")
    frames = sorted((root / "train/P100/blue mug/clutter").rglob("*.jpg"))
    frames[-1].unlink()
    video = sorted((root / "train/P100/blue mug/clean").iterdir())[0]
    (video / f"{video.name}-00002.jpg").unlink()
    problems = problems_of("orbit_84", root)
    expected = [
        "P198/bag has no clutter video",
        "lacks P100--blue-mug--clean",
        "has no folder validation; get validation.zip too",
        "train/P100/blue mug: P100--blue-mug--clutter",
        "test/P198/bag: has 0 clutter videos, and the benchmark's has 1",
    ]
    assert len(problems) == len(expected)
    for problem, part in zip(problems, expected, strict=True):
        assert part in problem
        assert str(root) in problem
    _, err = shell("data", "verify", "--data-dir", root, "--source", "orbit_84", code=1)
    assert err.count("Problem: ") == len(expected)


@pytest.mark.usefixtures("published")
def test_verifying_does_not_trust_the_cache(root: Path) -> None:
    KEEPER.index([], root, notify=silent)
    video = sorted((root / "test/P177/keys/clutter").iterdir())[0]
    time = video.stat().st_mtime_ns
    (video / f"{video.name}-00002.jpg").unlink()
    os.utime(video, ns=(time, time))
    assert any("frames, and the benchmark's has" in problem for problem in problems_of("orbit_84", root))


@pytest.mark.usefixtures("published")
def test_every_frame_is_decoded_if_asked(root: Path) -> None:
    frame = a_frame(root)
    frame.write_bytes(frame.read_bytes()[:-80])
    assert problems_of("orbit_84", root, decode=False) == []
    (problem,) = problems_of("orbit_84", root)
    assert f"The frame {frame} is truncated or damaged" in problem


@pytest.mark.usefixtures("published")
def test_frames_of_another_size_than_the_roots_name_says_are_found(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "orbit_benchmark_84", size=16)
    problems = problems_of("orbit_84", root)
    assert len(problems) == 21
    assert "is 16x16 pixels, not the 84x84 asked for" in problems[0]
    assert problems[-1] == "orbit_84: more frames are broken, which are not listed."


def test_nobody_calls_absent_data_fine(tmp_path: Path, shell: Shell) -> None:
    assert KEEPER.verify([], tmp_path, decode=True, workers=1, notify=silent) == {}
    (problem,) = problems_of("orbit_224", tmp_path)
    assert problem.startswith("orbit_224 was not found; lite-bench data prepare orbit_224")
    assert "No data was found to check" in shell.fails("data", "verify", "orbit", "--data-dir", tmp_path, code=1)
    (tmp_path / "test.zip").touch()
    (problem,) = problems_of("orbit_224", tmp_path)
    assert "still packed; unpack them with" in problem
    out, _ = shell("data", "verify", "orbit", "--data-dir", tmp_path, code=1)
    assert out.splitlines()[1] == "orbit_224\t1 problems"


def test_indexing_counts_videos_and_frames(root: Path, shell: Shell) -> None:
    out, _ = shell("data", "index", "orbit", "--data-dir", root)
    assert out.splitlines()[1:] == [f"orbit_84\t{VIDEOS}\t{FRAMES}"]
    assert KEEPER.index(["orbit_224"], root, notify=silent) == []
    a_frame(root).rename(a_frame(root).with_name("frame.jpg"))
    with pytest.raises(DataError, match=r"file frame\.jpg .* is not named as a frame"):
        KEEPER.index([], root, notify=silent)


# --- prepare and synth


def test_preparing_needs_originals_and_says_which(tmp_path: Path, shell: Shell) -> None:
    for source, title in (("orbit_224", "224-pixel"), ("orbit_84", r"full-size \(1080-pixel\)")):
        with pytest.raises(UsageError, match=rf"needs --from FOLDER with train\.zip, .* of the {title} release from"):
            KEEPER.prepare(source, None, tmp_path, workers=1, notify=silent)
    line = shell.fails("data", "prepare", "orbit_84", "--from", tmp_path / "no", "--output-dir", tmp_path, code=1)
    assert "holds none of the originals of orbit_84" in line


@pytest.mark.usefixtures("published")
def test_downloads_become_data_that_is_found(tmp_path: Path, shell: Shell) -> None:
    downloads = pack(write_tree(tmp_path / "full", size=240), tmp_path / "downloads")
    arguments = (
        "data",
        "prepare",
        "orbit_84",
        "--from",
        downloads,
        "--output-dir",
        tmp_path / "data",
        "--workers",
        "2",
    )
    _, err = shell(*arguments)
    assert f"Prepared orbit_84 in {tmp_path / 'data/orbit_benchmark_84'}: {VIDEOS} videos." in err
    assert "Version 2022 needs annotations, which are not there for train, validation, test: put orbit_extra" in err
    assert status_of("orbit_84", tmp_path / "data").state == "found"
    assert problems_of("orbit_84", tmp_path / "data") == []
    _, err = shell(*arguments)
    assert f"is complete already: {VIDEOS} videos." in err


def test_absent_splits_are_told(tmp_path: Path) -> None:
    downloads = pack(write_tree(tmp_path / "full", size=240), tmp_path / "downloads", splits=("test",))
    done = KEEPER.prepare("orbit_84", downloads, tmp_path, workers=1, notify=silent)
    assert "There is no train and no validation split." in done


@pytest.mark.parametrize("image_size", [None, 32])
def test_stand_ins_are_written_beside_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_size: int | None
) -> None:
    asked = {}

    def write(root: Path, *, progress: Callable[[int, int], None], **options: int) -> None:
        asked[root] = options
        progress(1, 2)

    monkeypatch.setattr(data_module, "write_standin", write)
    flags = KEEPER.synthesise(tmp_path, seed=3, workers=2, notify=silent, image_size=image_size)
    size = image_size or 84
    assert asked == {tmp_path / f"orbit_benchmark_{size}": {"image_size": size, "seed": 3, "workers": 2}}
    assert flags == f"--data-dir {tmp_path} --image-size {size}"
