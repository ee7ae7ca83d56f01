"""The three published forms of annotations, and files that are of none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite_bench.datasets.orbit.annotations import annotation_path, frames_with_object
from lite_bench.datasets.orbit.videos import Video
from lite_bench.harness.errors import DataError
from tests.datasets.orbit.trees import video_name

NAME = video_name("P177", "keys", "clutter", 1)
NO_ISSUES = dict.fromkeys(["framing_issue", "viewpoint_issue", "blur_issue", "occlusion_issue"], False)


def november(shown: bool) -> dict[str, Any]:
    return {"object_bounding_box": [3, 4, 5, 6] if shown else [0] * 4, "object_presence": int(shown)}


def december(shown: bool) -> dict[str, Any]:
    return {"object_bounding_box": {"x": 3, "y": 4, "w": 5, "h": 6} if shown else None, "object_present": shown}


def clutter_2022(shown: bool) -> dict[str, Any]:
    return {
        "object_bounding_box": {"x": 3, "y": 4, "w": 5, "h": 6} if shown else None,
        "object_not_present_issue": not shown,
    }


def clean_2022(shown: bool) -> dict[str, Any]:
    return {"object_not_present_issue": not shown, **(NO_ISSUES if shown else dict.fromkeys(NO_ISSUES))}


FORMS = [november, december, clutter_2022, clean_2022]


def video_of(n_frames: int) -> Video:
    return Video(NAME, "clutter", Path(), n_frames)


def write(root: Path, content: object) -> Path:
    path = annotation_path(root, "test", video_of(1))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=20, deadline=None)
@given(shown=st.lists(st.booleans(), min_size=1, max_size=30))
def test_all_published_forms_are_read(
    tmp_path_factory: pytest.TempPathFactory, form: Callable[[bool], dict[str, Any]], shown: list[bool]
) -> None:
    root = tmp_path_factory.getbasetemp() / "annotated"
    video = video_of(len(shown))
    # Frames in another order than their numbers', and one more than the video has.
    entries = {f"{NAME}-{number:05d}.jpg": form(there) for number, there in enumerate([*shown, True], start=1)}
    path = write(root, dict(reversed(entries.items())))
    assert path == root / "annotations" / "test" / f"{NAME}.json"
    found = frames_with_object(root, "test", video)
    assert found.dtype == bool
    assert found.tolist() == shown


def test_a_missing_file_comes_with_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"are missing; get orbit_extra_annotations\.zip in the folder data of"
    ) as caught:
        frames_with_object(tmp_path, "test", video_of(1))
    assert str(annotation_path(tmp_path, "test", video_of(1))) in str(caught.value)
    assert f"unpack it as {tmp_path / 'annotations'}" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "are not JSON"),
        ([1], "are not a map"),
        ({}, f"have no entry for the frame {NAME}-00001.jpg"),
        ({f"{NAME}-00001.jpg": november(True)}, f"have no entry for the frame {NAME}-00002.jpg"),
        ({f"{NAME}-00001.jpg": {"present": True}}, "do not say in any published form"),
        ({f"{NAME}-00001.jpg": True}, "do not say in any published form"),
        ({f"{NAME}-00001.jpg": {"object_not_present_issue": None}}, "do not say in any published form"),
        ({f"{NAME}-00001.jpg": {"object_presence": 2}}, "do not say in any published form"),
        ({f"{NAME}-00001.jpg": {"object_present": "yes"}}, "do not say in any published form"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, content: object, problem: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=problem) as caught:
        frames_with_object(tmp_path, "test", video_of(2))
    assert str(path) in str(caught.value)
    assert "orbit_extra_annotations.zip" in str(caught.value)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    write(tmp_path, "").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="are not JSON"):
        frames_with_object(tmp_path, "test", video_of(1))


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    annotation_path(tmp_path, "test", video_of(1)).mkdir(parents=True)
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        frames_with_object(tmp_path, "test", video_of(1))
