"""What is found in a tree, what is wrong with one, and when the cache is trusted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite_bench.datasets.orbit import scan as scan_module
from lite_bench.datasets.orbit.folders import Folders, _misnamed, list_folders
from lite_bench.datasets.orbit.published import SPLITS
from lite_bench.datasets.orbit.scan import cache_path, open_dataset, scan
from lite_bench.datasets.orbit.videos import KINDS, Kind, Video
from lite_bench.harness.errors import DataError
from tests.datasets.orbit.trees import N_FRAMES, N_VIDEOS, USERS, age, content, video_name, write_tree, write_video


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "orbit_benchmark_16")


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The roots whose folders were listed, as they are."""
    listed = []

    def listing(root: Path) -> Folders:
        listed.append(root)
        return list_folders(root)

    monkeypatch.setattr(scan_module, "list_folders", listing)
    return listed


def folder_of(root: Path, split: str, user: str, item: str, kind: str, number: int) -> Path:
    return root / split / user / item / kind / video_name(user, item.replace(" ", "-"), kind, number)


# --- what is found


def test_everything_is_found_in_order(root: Path) -> None:
    dataset = open_dataset(root)
    assert dataset.root == root
    assert not dataset.synthetic
    assert tuple(dataset.users) == SPLITS
    for split in SPLITS:
        users = dataset.users[split]
        assert {user: [each.name for each in users[user]] for user in users} == {
            user: sorted(objects) for user, objects in USERS[split].items()
        }
        for user, objects in users.items():
            for each in objects:
                clean, clutter = USERS[split][user][each.name]
                assert [video.n_frames for video in each.clean] == list(clean)
                assert [video.n_frames for video in each.clutter] == list(clutter)
    videos = list(dataset.videos())
    assert len(videos) == sum(N_VIDEOS.values())
    assert sum(video.n_frames for video in videos) == sum(N_FRAMES.values())
    for video in videos:
        assert video.folder.name == video.name
        assert video.folder.parent.name == video.kind
        assert video.folder.parents[1].name == video.token.replace("-", " ")
        assert sorted(path.name for path in video.folder.iterdir()) == [
            video.frame(position) for position in range(video.n_frames)
        ]


def test_videos_come_in_order_of_name(tmp_path: Path) -> None:
    for number in (11, 3, 7, 20):
        write_video(tmp_path, "test", "P177", "keys", "clean", number, 1, 8)
    write_video(tmp_path, "test", "P177", "keys", "clutter", 0, 1, 8)
    (each,) = open_dataset(tmp_path).users["test"]["P177"]
    assert [video.name for video in each.clean] == [video_name("P177", "keys", "clean", n) for n in (3, 7, 11, 20)]


@given(
    st.text("abcXYZ019_-", min_size=43, max_size=43),
    st.sampled_from(KINDS),
    st.from_regex(r"[a-z]+(-[a-z]+)?", fullmatch=True),
)
def test_ids_may_hold_hyphens_anywhere(identity: str, kind: Kind, token: str) -> None:
    name = f"P177--{token}--{kind}--{identity}"
    assert _misnamed(Path("root"), f"test/P177/any name/{kind}/{name}") == ""
    assert Video(name, kind, Path(), 1).token == token


def test_a_tree_with_one_split_can_be_opened(root: Path) -> None:
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "validation")
    dataset = open_dataset(root)
    assert dataset.users["train"] == dataset.users["validation"] == {}
    assert list(dataset.users["test"]) == ["P177", "P198"]
    assert not any(text.startswith(("train", "validation")) for text in dataset.differences)


def test_what_desktops_and_stopped_preparations_leave_is_not_seen(root: Path) -> None:
    before = open_dataset(root)
    video = next(iter(before.videos())).folder
    for folder in (root / "test", root / "test/P177", root / "test/P177/keys", video.parents[1] / "clean", video):
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / name).touch()
    (video.parent / ".half.tmp").mkdir()
    after = open_dataset(root)
    assert list(after.videos()) == list(before.videos())
    assert after.fingerprints == before.fingerprints


def test_links_are_followed(root: Path, tmp_path: Path) -> None:
    fingerprints = open_dataset(root).fingerprints
    (root / "train").rename(tmp_path / "elsewhere")
    (root / "train").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert open_dataset(root).fingerprints == fingerprints


def test_stand_ins_are_marked(root: Path) -> None:
    (root / "synthetic.json").write_text("{}")
    assert open_dataset(root).synthetic


# --- the fingerprint


def fingerprints_by_hand(root: Path) -> dict[str, str]:
    digests = {split: hashlib.sha256() for split in SPLITS}
    for split, digest in digests.items():
        for user in sorted((root / split).iterdir()):
            for item in sorted(user.iterdir()):
                for kind in ("clean", "clutter"):
                    for video in sorted((item / kind).iterdir()):
                        frames = sorted(video.iterdir())
                        place = video.relative_to(root).as_posix()
                        digest.update(f"{place}\0{len(frames)}\0{len(frames[0].read_bytes())}\n".encode())
    return {split: digest.hexdigest() for split, digest in digests.items()}


def test_the_fingerprint_depends_on_neither_place_nor_cache(root: Path, tmp_path: Path) -> None:
    fingerprints = open_dataset(root).fingerprints
    assert fingerprints == fingerprints_by_hand(root)
    assert open_dataset(root).fingerprints == fingerprints
    assert scan(root, rebuild=True).dataset.fingerprints == fingerprints
    assert open_dataset(shutil.copytree(root, tmp_path / "copy")).fingerprints == fingerprints


def test_a_split_has_a_fingerprint_whatever_the_others_are(root: Path) -> None:
    before = open_dataset(root).fingerprints
    assert len(set(before.values())) == 3
    shutil.rmtree(root / "validation")
    shutil.rmtree(folder_of(root, "train", "P100", "keys", "clean", 2))
    after = open_dataset(root).fingerprints
    assert after["test"] == before["test"]
    assert set(after.values()).isdisjoint({before["train"], before["validation"]})


def test_the_fingerprint_changes_with_frames_and_names(root: Path) -> None:
    seen = {open_dataset(root).fingerprints["test"]}
    video = folder_of(root, "test", "P177", "keys", "clean", 1)
    last = video / f"{video.name}-00002.jpg"
    last.unlink()
    seen.add(open_dataset(root).fingerprints["test"])
    first = video / f"{video.name}-00001.jpg"
    first.write_bytes(first.read_bytes() + b"\0")
    seen.add(scan(root, rebuild=True).dataset.fingerprints["test"])
    (root / "test/P177/keys").rename(root / "test/P177/my keys")
    seen.add(open_dataset(root).fingerprints["test"])
    assert len(seen) == 4


# --- what is wrong


def remove_objects(root: Path) -> None:
    shutil.rmtree(root / "test/P177")
    (root / "test/P177").mkdir()


def remove_frames(root: Path) -> None:
    for frame in folder_of(root, "test", "P177", "keys", "clean", 1).iterdir():
        frame.unlink()


def remove_one_frame(root: Path) -> None:
    folder = folder_of(root, "train", "P100", "blue mug", "clean", 0)
    (folder / f"{folder.name}-00002.jpg").unlink()


def misname_a_frame(root: Path) -> None:
    folder = folder_of(root, "train", "P100", "blue mug", "clean", 0)
    (folder / f"{folder.name}-00002.jpg").rename(folder / "2.jpg")


def move_to_another_user(root: Path) -> None:
    source = folder_of(root, "test", "P177", "keys", "clean", 0)
    shutil.copytree(source, root / "test/P198/bag/clean" / source.name)


def move_to_another_kind(root: Path) -> None:
    source = folder_of(root, "test", "P177", "keys", "clean", 0)
    source.rename(source.parents[1] / "clutter" / source.name)


def misname_a_video(root: Path) -> None:
    source = folder_of(root, "test", "P177", "keys", "clean", 0)
    source.rename(source.with_name("P177--keys--clean"))


def rename_a_kind(root: Path, name: str) -> None:
    (root / "test/P177/keys/clutter").rename(root / "test/P177/keys" / name)


def keep_one_clean_video(root: Path) -> None:
    shutil.rmtree(folder_of(root, "test", "P198", "bag", "clean", 0))


def copy_a_user(root: Path) -> None:
    shutil.copytree(root / "test/P198", root / "train/P198")


def copy_a_video(root: Path) -> None:
    source = folder_of(root, "test", "P177", "keys", "clean", 0)
    shutil.copytree(source, root / "test/P177/front door/clean" / source.name)


PROBLEMS: list[tuple[str, Callable[[Path], object], str]] = [
    ("user without objects", remove_objects, r"user .*test/P177 has no objects; download"),
    ("split without users", lambda root: shutil.rmtree(root / "validation/P189"), r"folder .*validation has no users"),
    (
        "object without clean videos",
        lambda root: shutil.rmtree(root / "test/P198/bag/clean"),
        r"object .*P198/bag has 0 clean videos and needs 2",
    ),
    (
        "a single clean video",
        keep_one_clean_video,
        r"object .*P198/bag has 1 clean videos and needs 2, one to learn from",
    ),
    (
        "no clutter video",
        lambda root: shutil.rmtree(root / "test/P198/bag/clutter"),
        r"object .*P198/bag has no clutter video",
    ),
    ("no frames", remove_frames, r"video .*P177--keys--clean--.* has no frames"),
    ("a gap", remove_one_frame, r"video .* lacks P100--blue-mug--clean--.*-00002\.jpg, though it has .*-00003\.jpg"),
    ("a frame of another name", misname_a_frame, r"file 2\.jpg in .* is not named as a frame of that video"),
    ("another user's video", move_to_another_user, r"video .* lies in a folder of the user P198 but is named for P177"),
    ("another kind's video", move_to_another_kind, r"lies in a folder of the kind clutter but is named for clean"),
    ("a misnamed video", misname_a_video, r"is not named <user>--<object>--<kind>--<id>"),
    ("the unfiltered dataset", lambda root: rename_a_kind(root, "clutter-pan"), r"holds the unfiltered ORBIT dataset"),
    (
        "an unknown kind",
        lambda root: rename_a_kind(root, "dirty"),
        r"folder .*keys/dirty is no kind of videos; those are clean and clutter",
    ),
    ("a user in two splits", copy_a_user, r"user P198 is there twice, as .*train/P198 and .*test/P198"),
    ("a video in two objects", copy_a_video, r"video P177--keys--clean--.* is there twice"),
    (
        "a stray file",
        lambda root: (root / "test/P177/notes.txt").touch(),
        r"notes\.txt lies where only folders of objects belong",
    ),
]


@pytest.mark.parametrize(("spoil", "problem"), [case[1:] for case in PROBLEMS], ids=[case[0] for case in PROBLEMS])
def test_problems_are_named_with_path_and_remedy(root: Path, spoil: Callable[[Path], object], problem: str) -> None:
    open_dataset(root)
    spoil(root)
    with pytest.raises(DataError, match=problem) as caught:
        open_dataset(root)
    assert str(root) in str(caught.value)
    assert ";" in str(caught.value) or ":" in str(caught.value)
    assert not any(line != str(caught.value) for line in str(caught.value).splitlines())


def test_a_folder_without_splits_is_no_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds none of the folders train, validation and test; give the folder that"):
        open_dataset(tmp_path)


def test_all_problems_are_listed_and_the_first_is_raised(root: Path) -> None:
    remove_frames(root)
    remove_one_frame(root)
    keep_one_clean_video(root)
    problems = scan(root).problems
    assert len(problems) == 3
    with pytest.raises(DataError) as caught:
        open_dataset(root)
    assert str(caught.value).startswith(problems[0])
    assert str(caught.value).endswith("This is one of 3 problems; `lite-bench data verify orbit` lists them.")


def test_the_unfiltered_dataset_is_one_problem(root: Path) -> None:
    shutil.rmtree(root / "train/P100/blue mug/clutter")  # its objects need not have videos of every kind
    for item in ("test/P177/keys", "test/P177/front door", "train/P100/keys"):
        (root / item / "clutter-pan").mkdir()
    (problem,) = scan(root).problems
    assert f"{root} holds the unfiltered ORBIT dataset" in problem


def test_collectors_outside_the_splits_give_the_unfiltered_dataset_away(root: Path) -> None:
    (root / "other" / "notes").mkdir(parents=True)
    assert scan(root, rebuild=True).problems == ()
    (root / "other" / "P101").mkdir()
    (problem,) = scan(root, rebuild=True).problems
    assert f"{root} holds the unfiltered ORBIT dataset" in problem


def test_a_stopped_preparation_is_named(root: Path) -> None:
    open_dataset(root)
    record = root / "preparation.json"
    record.write_text('{"source": "orbit_84", "finished": false}')
    with pytest.raises(DataError, match="is not finished; repeat `lite-bench data prepare orbit_84` to go on with it"):
        open_dataset(root)
    record.write_text('{"source": "orbit_84", "finished": true}')
    open_dataset(root)
    for damage in ("", "[]", "{}"):
        record.write_text(damage)
        with pytest.raises(DataError, match=r"preparation\.json is damaged"):
            open_dataset(root)
    record.unlink()
    record.mkdir()
    with pytest.raises(DataError, match=r"preparation\.json cannot be read"):
        open_dataset(root)


def test_an_unreadable_folder_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir, listdir = os.scandir, os.listdir

    def checked(path: Path) -> Path:
        if "P198" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return path

    monkeypatch.setattr(os, "scandir", lambda path: scandir(checked(path)))
    with pytest.raises(DataError, match=r"folder .*P198 cannot be read \(Permission denied\)"):
        open_dataset(root)
    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "listdir", lambda path: listdir(checked(path)))
    with pytest.raises(DataError, match=r"video .*P198.* cannot be read \(Permission denied\)"):
        open_dataset(root)


# --- the cache


def test_what_was_found_is_not_listed_again(root: Path, listings: list[Path]) -> None:
    first = open_dataset(root)
    assert len(listings) == 1
    assert open_dataset(root) == first
    assert open_dataset(root / "train" / "..").fingerprints == first.fingerprints
    assert len(listings) == 1
    assert scan(root, rebuild=True).dataset == first
    assert len(listings) == 2


CHANGES: list[tuple[str, Callable[[Path], object]]] = [
    ("a frame less", lambda root: next(folder_of(root, "test", "P198", "bag", "clutter", 0).iterdir()).unlink()),
    ("a video more", lambda root: write_video(root, "test", "P198", "bag", "clean", 7, 2, 8)),
    ("an object more", lambda root: shutil.copytree(root / "test/P177/keys", root / "test/P198/keys")),
    ("an object renamed", lambda root: (root / "test/P198/bag").rename(root / "test/P198/my bag")),
    ("a user less", lambda root: shutil.rmtree(root / "test/P198")),
    ("a split less", lambda root: shutil.rmtree(root / "validation")),
]


@pytest.mark.parametrize("change", [case[1] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_a_changed_tree_is_listed_anew(root: Path, listings: list[Path], change: Callable[[Path], object]) -> None:
    scan(root)
    change(root)
    changed = scan(root)
    assert len(listings) == 2
    assert changed.dataset == scan(root, rebuild=True).dataset


def test_a_split_more_is_listed_anew(root: Path, listings: list[Path], tmp_path: Path) -> None:
    (root / "train").rename(tmp_path / "later")
    assert open_dataset(root).users["train"] == {}
    (tmp_path / "later").rename(root / "train")
    assert list(open_dataset(root).users["train"]) == ["P100"]
    assert len(listings) == 2


def damage_content(text: str) -> str:
    checksum, _, rest = text.partition("\n")
    return f"{checksum}\n{rest.replace(', 3, ', ', 4, ')}"


def other_version(text: str) -> str:
    record = json.dumps({**json.loads(text.partition("\n")[2]), "version": 0})
    return f"{hashlib.sha256(record.encode()).hexdigest()}\n{record}\n"


@pytest.mark.parametrize(
    "damage", [lambda text: "", lambda text: text[:-30], lambda text: "\xff" + text, damage_content, other_version]
)
def test_a_damaged_cache_is_written_anew(root: Path, listings: list[Path], damage: Callable[[str], str]) -> None:
    first = open_dataset(root)
    cached = cache_path(root)
    good = cached.read_text()
    cached.write_text(damage(good), encoding="utf-8")
    assert cached.read_text(encoding="utf-8") != good
    assert open_dataset(root) == first
    assert len(listings) == 2
    assert cached.read_text() == good


def test_a_tree_with_problems_is_not_kept(root: Path, listings: list[Path]) -> None:
    remove_one_frame(root)
    assert scan(root).problems == scan(root).problems
    assert len(listings) == 2
    assert not cache_path(root).exists()


def test_a_cache_folder_that_cannot_be_written_only_costs_the_cache(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listings: list[Path]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LITE_BENCH_HOME", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="listed anew each time .* set LITE_BENCH_HOME to a folder"):
        first = open_dataset(root)
    assert open_dataset(root) == first  # and no second warning
    assert len(listings) == 2


def test_the_cache_has_its_place(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LITE_BENCH_HOME", str(tmp_path / "home"))
    open_dataset(root)
    assert [path.name for path in (tmp_path / "home/orbit").iterdir()] == [cache_path(root).name]
    monkeypatch.delenv("LITE_BENCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_path(root).parent == tmp_path / "xdg/lite-bench/orbit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_path(root).parent == tmp_path / ".cache/lite-bench/orbit"


def test_listing_reads_no_frame(root: Path) -> None:
    before = content(root)
    age(root)
    for frame in root.rglob("*.jpg"):
        frame.write_bytes(b"x" * len(before[frame.relative_to(root).as_posix()]))
    assert len(list(open_dataset(root).videos())) == sum(N_VIDEOS.values())
