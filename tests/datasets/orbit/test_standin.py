"""The stand-in has the published users, objects and videos, in the published layout, and can be learned."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lite_bench.datasets.orbit import standin
from lite_bench.datasets.orbit.annotations import annotation_path
from lite_bench.datasets.orbit.published import PublishedUsers, published_users
from lite_bench.datasets.orbit.scan import open_dataset
from lite_bench.datasets.orbit.standin import (
    PlannedVideo,
    back_and_forth,
    clutter_frames,
    plan_object,
    write_object,
    write_standin,
)
from lite_bench.datasets.orbit.standin_images import (
    bounding_box,
    draw_ground,
    draw_look,
    draw_picture,
    draw_scene,
    paint,
)
from lite_bench.datasets.orbit.videos import Kind
from lite_bench.harness.core import Split
from lite_bench.harness.errors import RunError, UsageError

SIDE = 32
ABSENT = ("P204", 0)
"""An object some of whose clutter videos have frames without it."""
FLAGS = ("object_not_present", "framing", "viewpoint", "blur", "occlusion", "overexposed", "underexposed")


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def everything(root: Path = Path("root")) -> Iterator[tuple[Split, str, str, list[PlannedVideo]]]:
    """All videos of the whole stand-in: split, user, token and the videos of that object."""
    for split, users in published_users().items():
        for user, objects in users.items():
            for each in objects:
                yield split, user, each.token, list(plan_object(root, split, user, each))


def contents(root: Path) -> dict[str, bytes]:
    """Every file by its path below ``root``."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def few_users() -> PublishedUsers:
    """A user of each split, and one or two objects of theirs."""
    keep: dict[Split, str] = {"train": "P100", "validation": "P189", "test": "P204"}
    return {split: {user: published_users()[split][user][:2]} for split, user in keep.items()}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> PublishedUsers:
    users = few_users()
    monkeypatch.setattr(standin, "published_users", lambda: users)
    return users


class TestPlan:
    def test_counts_are_as_published(self) -> None:
        counts: Counter[str] = Counter()
        for split, user, token, videos in everything():
            (published,) = (each for each in published_users()[split][user] if each.token == token)
            kinds = Counter(each.video.kind for each in videos)
            assert (kinds["clean"], kinds["clutter"]) == (published.clean, len(published.clutter))
            counts.update({split: 1, "objects": 1, "videos": len(videos)})
        assert counts == {"train": 278, "validation": 50, "test": 158, "objects": 486, "videos": 3822}

    def test_names(self) -> None:
        names = [each.video.name for *_, videos in everything() for each in videos]
        ids = [name.split("--", 3)[3] for name in names]
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", each) for each in ids)
        assert sum("-" in each for each in ids) > 1000
        assert 5 < sum("--" in each for each in ids) < 200
        assert any(each.startswith("-") for each in ids)

    def test_places(self) -> None:
        for split, user, token, videos in everything():
            for each in videos:
                assert each.video.token == token
                assert each.video.name.startswith(f"{user}--{token}--{each.video.kind}--")
                folder = Path("root", split, user, token.replace("-", " "), each.video.kind, each.video.name)
                assert each.video.folder == folder

    def test_folders_and_tokens_are_in_one_order(self) -> None:
        for users in published_users().values():
            for objects in users.values():
                tokens = [each.token for each in objects]
                assert tokens == sorted(tokens, key=lambda token: token.replace("-", " "))
                assert len({token.replace("-", " ") for token in tokens}) == len(tokens)

    def test_videos_of_a_kind_are_in_order_of_name(self) -> None:
        for *_, videos in everything():
            for kind in ("clean", "clutter"):
                names = [each.video.name for each in videos if each.video.kind == kind]
                assert names == sorted(names)

    def test_lengths_of_clean_videos(self) -> None:
        context = []
        for *_, videos in everything():
            clean = [each for each in videos if each.video.kind == "clean"]
            assert not any(each.n_absent for each in clean)
            n_context = min(5, len(clean) - 1)
            context += [each.video.n_frames for each in clean[:n_context]]
            assert all(50 <= each.video.n_frames <= 60 for each in clean[n_context:])
        assert set(context) == set(range(8, 21))

    def test_lengths_of_clutter_videos(self) -> None:
        few = Counter[str]()
        for split, user, token, videos in everything():
            (published,) = (each for each in published_users()[split][user] if each.token == token)
            clutter = [each for each in videos if each.video.kind == "clutter"]
            for each, (n_real, absent_in_reality) in zip(clutter, published.clutter, strict=True):
                assert each.video.n_frames == min(n_real, 56)
                assert (each.n_absent > 0) == (absent_in_reality > 0)
                shown = each.video.n_frames - each.n_absent
                if shown < 50:
                    few[f"{split} {user}"] += 1
                    assert shown == n_real - absent_in_reality
                else:
                    assert each.n_absent <= 6
        assert few == {"test P204": 2, "test P901": 1, "train P398": 1, "train P806": 1}

    @given(st.integers(1, 4000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
    def test_a_video_is_scored_where_the_real_one_is(self, real: tuple[int, int]) -> None:
        n_frames, n_absent = clutter_frames(*real)
        assert 1 <= n_frames <= 56
        assert 0 <= n_absent <= n_frames
        assert (n_frames - n_absent < 50) == (real[0] - real[1] < 50)

    def test_back_and_forth(self) -> None:
        assert [back_and_forth(position, 4) for position in range(10)] == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3]


class TestPictures:
    @settings(deadline=None, max_examples=30)
    @given(st.integers(0, 10_000), st.sampled_from(["clean", "clutter"]), st.sampled_from([16, 33, 84]))
    def test_the_box_holds_what_the_object_changes(self, seed: int, kind: Kind, side: int) -> None:
        scene = draw_scene(kind, draw_look(generator(seed)), [], generator(seed + 1))
        look, path = scene.target
        # Painted in black and in white, for a look may have the colour of what is behind it.
        covered = np.zeros((side, side))
        for shade in (-1.0, 2.0):
            canvas = np.full((side, side, 3), shade, np.float32)
            window = paint(canvas, look, path.pose(0.5, side), scene.light)
            covered = np.maximum(covered, abs(canvas - shade).max(2))
        ground = draw_ground(scene, side)
        noise = np.full((side, side, 3), 128, np.uint8)
        box = draw_picture(scene, 0.5, ground, noise, shown=True).box
        assert box == bounding_box(*window)
        assert box is not None
        assert 0 <= box.x < box.x + box.width <= side
        assert 0 <= box.y < box.y + box.height <= side
        outside = covered.copy()
        outside[box.y : box.y + box.height, box.x : box.x + box.width] = 0
        inner = covered[box.y : box.y + box.height, box.x : box.x + box.width] > 0
        # Outside is at most the soft rim of a pixel or two.
        rows, columns = np.nonzero(outside)
        assert ((box.x - 3 <= columns) & (columns <= box.x + box.width + 2)).all()
        assert ((box.y - 3 <= rows) & (rows <= box.y + box.height + 2)).all()
        assert all(edge.any() for edge in (inner[0], inner[-1], inner[:, 0], inner[:, -1]))
        assert draw_picture(scene, 0.5, ground, noise, shown=False).box is None

    def test_a_thing_out_of_sight_changes_nothing(self) -> None:
        look = draw_look(generator(0))
        for place in (-50.0, 100.0):
            canvas = np.zeros((SIDE, SIDE, 3), np.float32)
            pose = draw_scene("clean", look, [], generator(0)).target[1].pose(0, SIDE)
            window = paint(canvas, look, type(pose)(place, place, 3.0, 0.0), np.ones(3, np.float32))
            assert not canvas.any()
            assert bounding_box(*window) is None

    def test_a_clutter_video_shows_other_objects_of_the_user(self) -> None:
        looks = [draw_look(generator(seed)) for seed in range(6)]
        shown = Counter[int]()
        for seed in range(100):
            scene = draw_scene("clutter", looks[0], looks[1:], generator(seed))
            own = [number for number, look in enumerate(looks) if any(look is other for other, _ in scene.behind)]
            assert 1 <= len(own) <= 3
            assert 2 <= len(scene.behind) - len(own) <= 4
            assert scene.before
            shown.update(own)
        assert set(shown) == {1, 2, 3, 4, 5}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in of a single object."""
    root = tmp_path_factory.mktemp("object")
    write_object(root, "test", *ABSENT, SIDE, 0)
    return root


@pytest.fixture
def videos(root: Path) -> list[PlannedVideo]:
    user, number = ABSENT
    return list(plan_object(root, "test", user, published_users()["test"][user][number]))


class TestObject:
    def test_files_are_those_planned(self, root: Path, videos: list[PlannedVideo]) -> None:
        expected = {f"annotations/test/{each.video.name}.json" for each in videos}
        for each in videos:
            names = (f"{each.video.name}-{number:05d}.jpg" for number in range(1, each.video.n_frames + 1))
            expected |= {str((each.video.folder / name).relative_to(root)) for name in names}
        assert set(contents(root)) == expected

    def test_frames_are_few_distinct_ones(self, videos: list[PlannedVideo]) -> None:
        for each in videos:
            frames = sorted(each.video.folder.iterdir())
            distinct = {path.stat().st_ino: path for path in frames}
            assert min(8, len(frames)) <= len(distinct) <= 10 + each.n_absent
            assert len({path.read_bytes() for path in frames}) == len(distinct)
            for path in distinct.values():
                with Image.open(path) as image:
                    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (SIDE, SIDE))

    def test_the_object_moves_smoothly(self, videos: list[PlannedVideo]) -> None:
        clean = [each.video for each in videos if each.video.kind == "clean"]
        steps, leaps = [], []
        for video, other in pairwise(clean):
            first, second, end, elsewhere = (
                pixels(path).astype(float)
                for path in (
                    video.folder / video.frame(0),
                    video.folder / video.frame(1),
                    video.folder / video.frame(7),
                    other.folder / other.frame(0),
                )
            )
            steps.append(abs(first - second).mean())
            leaps.append(abs(first - elsewhere).mean())
            assert abs(first - second).mean() < abs(first - end).mean()
        assert np.mean(steps) < np.mean(leaps) / 2

    def test_annotations_of_clutter_videos(self, root: Path, videos: list[PlannedVideo]) -> None:
        absent_in_all = 0
        for each in (each for each in videos if each.video.kind == "clutter"):
            frames = json.loads(annotation_path(root, "test", each.video).read_text())
            assert sorted(frames) == sorted(path.name for path in each.video.folder.iterdir())
            absent = [name for name, frame in frames.items() if frame["object_not_present_issue"]]
            assert len(absent) == each.n_absent
            absent_in_all += len(absent)
            for frame in frames.values():
                assert set(frame) == {"object_bounding_box", "object_not_present_issue"}
                box = frame["object_bounding_box"]
                assert (box is None) is frame["object_not_present_issue"]
                if box is not None:
                    assert list(box) == ["x", "y", "w", "h"]
                    assert 0 <= box["x"] < box["x"] + box["w"] <= 1080
                    assert 0 <= box["y"] < box["y"] + box["h"] <= 1080
        assert absent_in_all

    def test_annotations_of_clean_videos(self, root: Path, videos: list[PlannedVideo]) -> None:
        for each in (each for each in videos if each.video.kind == "clean"):
            frames = json.loads(annotation_path(root, "test", each.video).read_text())
            assert sorted(frames) == sorted(path.name for path in each.video.folder.iterdir())
            for frame in frames.values():
                assert list(frame) == [f"{flag}_issue" for flag in FLAGS]
                assert all(type(value) is bool for value in frame.values())
                assert not frame["object_not_present_issue"]

    def test_without_links_there_are_copies(
        self, root: Path, videos: list[PlannedVideo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(self: Path, target: Path) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
        write_object(tmp_path, "test", *ABSENT, SIDE, 0)
        assert contents(tmp_path) == contents(root)
        assert all(path.stat().st_nlink == 1 for path in tmp_path.rglob("*.jpg"))

    def test_another_seed_gives_other_pictures_of_the_same_names(self, root: Path, tmp_path: Path) -> None:
        write_object(tmp_path, "test", *ABSENT, SIDE, 1)
        first, second = contents(root), contents(tmp_path)
        assert set(first) == set(second)
        assert not {first[name] for name in first if name.endswith(".jpg")} & set(second.values())


class TestWhole:
    def test_writes_all_splits_and_says_how_far_it_is(self, few: PublishedUsers, tmp_path: Path) -> None:
        told: list[tuple[int, int]] = []
        root = tmp_path / "new" / "orbit_benchmark_16"
        write_standin(root, image_size=16, progress=lambda done, total: told.append((done, total)))
        n_videos = [each.clean + len(each.clutter) for users in few.values() for each in chain(*users.values())]
        assert told == [(done, sum(n_videos)) for done in accumulate(n_videos)]
        assert {path.name for path in root.iterdir()} == {
            "train",
            "validation",
            "test",
            "annotations",
            "synthetic.json",
        }
        for split, users in few.items():
            for user, objects in users.items():
                folders = {path.name for path in (root / split / user).iterdir()}
                assert folders == {each.token.replace("-", " ") for each in objects}
        mark = json.loads((root / "synthetic.json").read_text())
        assert (mark["synthetic"], mark["seed"], mark["image_size"]) == (True, 0, 16)
        assert "made-up" in mark["note"]

    @pytest.mark.usefixtures("few")
    def test_the_same_seed_gives_the_same_bytes(self, tmp_path: Path) -> None:
        write_standin(tmp_path / "one", image_size=16, seed=5)
        write_standin(tmp_path / "two", image_size=16, seed=5)
        assert contents(tmp_path / "one") == contents(tmp_path / "two")

    def test_does_not_write_into_what_is_there(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(RunError, match=re.escape(f"{tmp_path} is not an empty folder; name a new one")):
            write_standin(tmp_path)
        with pytest.raises(RunError, match=r"notes\.txt is not an empty folder"):
            write_standin(tmp_path / "notes.txt")
        assert contents(tmp_path) == {"notes.txt": b"mine"}

    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(RunError, match=r"Could not write .*synthetic\.json: Not a directory"):
            write_standin(tmp_path / "file" / "root")

    @pytest.mark.usefixtures("few")
    def test_a_disk_that_fills_up(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(self: Path, data: bytes) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", fail)
        with pytest.raises(RunError, match=r"The disk is full: could not write .*P100--"):
            write_standin(tmp_path / "root", image_size=16)
        assert (tmp_path / "root" / "synthetic.json").is_file()

    def test_a_size_at_which_nothing_shows(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="image size 8 would show nothing; give at least 16"):
            write_standin(tmp_path / "root", image_size=8)

    def test_needs_no_torch(self) -> None:
        code = "import sys, lite_bench.datasets.orbit.standin; print('torch' in sys.modules)"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert run.stdout.strip() == "False"


def histograms(folder: Path) -> np.ndarray:
    """Colour histograms of a video's frames, each read once: [frames, 64] square roots of shares."""
    known: dict[int, np.ndarray] = {}
    rows = []
    for path in sorted(folder.iterdir()):
        number = path.stat().st_ino
        if number not in known:
            bins = (pixels(path) // 64).reshape(-1, 3) @ [16, 4, 1]
            known[number] = np.sqrt(np.bincount(bins, minlength=64) / len(bins))
        rows.append(known[number])
    return np.stack(rows)


def nearest_mean_accuracy(user: Path, *, clutter: bool) -> tuple[list[float], list[float]]:
    """Classify the frames of a user's target videos by the nearest class mean; gives accuracy and chance by video."""
    means, targets = [], []
    objects = sorted(user.iterdir())
    for label, folder in enumerate(objects):
        clean = sorted((folder / "clean").iterdir())
        n_context = len(clean) if clutter else min(5, len(clean) - 1)
        means.append(np.concatenate([histograms(video) for video in clean[:n_context]]).mean(0))
        held_out = sorted((folder / "clutter").iterdir()) if clutter else clean[n_context:]
        targets += [(label, histograms(video)) for video in held_out]
    nearest = [((rows[:, None] - np.stack(means)) ** 2).sum(2).argmin(1) == label for label, rows in targets]
    return [float(right.mean()) for right in nearest], [1 / len(objects)] * len(targets)


def test_colours_tell_some_objects_apart(tmp_path: Path) -> None:
    found: dict[bool, list[float]] = {False: [], True: []}
    chance: list[float] = []
    for user in ("P177", "P485", "P900"):
        for number in range(len(published_users()["test"][user])):
            write_object(tmp_path, "test", user, number, SIDE, 0)
        for clutter in found:
            accuracies, by_chance = nearest_mean_accuracy(tmp_path / "test" / user, clutter=clutter)
            found[clutter] += accuracies
            chance += by_chance
    assert 2.5 * np.mean(chance) < np.mean(found[False]) < 0.8
    assert 1.2 * np.mean(chance) < np.mean(found[True]) < np.mean(found[False])


@pytest.mark.slow
def test_the_whole_stand_in_whatever_the_number_of_processes(tmp_path: Path) -> None:
    write_standin(tmp_path / "one", image_size=16)
    write_standin(tmp_path / "two", image_size=16, workers=2)
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "two")
    dataset = open_dataset(tmp_path / "one")
    assert dataset.synthetic
    assert not dataset.differences
    planned = [each for *_, videos in everything() for each in videos]
    assert len(one) == 1 + len(planned) + sum(each.video.n_frames for each in planned)
    for clutter, videos, published_chance in ((False, 181, 10.65), (True, 300, 10.97)):
        users = [nearest_mean_accuracy(user, clutter=clutter) for user in sorted((tmp_path / "one" / "test").iterdir())]
        accuracies, by_chance = ([value for user in users for value in user[part]] for part in (0, 1))
        assert len(accuracies) == videos
        assert round(100 * np.mean(by_chance), 2) == published_chance
        assert (0.15, 0.35)[not clutter] < np.mean(accuracies) < (0.4, 0.8)[not clutter]
