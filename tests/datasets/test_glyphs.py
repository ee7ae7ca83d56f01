"""The embedded suite: scripts, drawings and episodes."""

from __future__ import annotations

import json
from importlib.resources import files

import numpy as np
import pytest

from lite_bench.datasets.glyph_rendering import (
    MIN_CONTRAST,
    N_UNIFORMS,
    PATCH,
    Renderer,
    Uniforms,
    draw_palette,
    ink_mask,
    luminance,
)
from lite_bench.datasets.glyph_table import FACES, MIN_FACES, Letter, font_path, make_table, read_table
from lite_bench.datasets.glyphs import Glyphs
from lite_bench.harness.core import Task
from lite_bench.harness.errors import DataError, UsageError
from lite_bench.harness.options import check_options
from tests.datasets.suite_checks import check_episode, check_id, check_suite, same

SCRIPTS = {
    "train": {"latin": 881, "greek": 229, "cyrillic": 227, "canadian": 381, "coptic": 14, "old-italic": 30},
    "validation": {"armenian": 58, "lao": 39},
    "test": {"arabic": 187, "georgian": 119, "hebrew": 48},
}
RANDOM = np.random.default_rng(7)


def test_facts_of_the_table() -> None:
    scripts = read_table().scripts
    counts = {split: {name: len(x) for name, x in members.items()} for split, members in scripts.items()}
    assert counts == SCRIPTS
    letters = [letter for members in scripts.values() for x in members.values() for letter in x]
    assert (
        len({letter.character for letter in letters})
        == len(letters)
        == sum(n for members in SCRIPTS.values() for n in members.values())
    )
    assert all(len(letter.faces) >= MIN_FACES for letter in letters)
    assert all(max(letter.faces) < len(FACES) for letter in letters)


def test_letters_that_look_alike_are_in_one_script_only() -> None:
    characters = {
        letter.character
        for members in read_table().scripts.values()
        for letters in members.values()
        for letter in letters
    }
    assert "A" in characters
    assert not characters & set("ΑАꓮ")  # Alpha, Cyrillic A, Lisu A
    assert not characters & set("оο")  # Cyrillic o, omicron
    assert "ס" not in characters  # like o


@pytest.mark.slow
def test_the_table_can_be_made_again() -> None:
    committed = json.loads(files("lite_bench.datasets").joinpath("glyphs.json").read_bytes())
    assert make_table() == committed


def test_suite() -> None:
    check_suite(Glyphs(28, None, tasks=2, way=5, shot=2, query=3))


def test_defaults() -> None:
    suite = Glyphs(None, None)
    assert suite.id == "glyphs@1"
    assert suite.image_size == 64
    assert suite.embedded
    assert suite.configured(None) is None
    assert suite.groups == {"unseen scripts": ("arabic", "georgian", "hebrew")}
    assert {name: len(tasks) for name, tasks in suite.tasks("test").items()} == {
        "arabic": 100,
        "georgian": 100,
        "hebrew": 100,
    }
    assert {name: len(tasks) for name, tasks in suite.tasks("validation").items()} == {
        "armenian": 50,
        "lao": 50,
    }
    episode = check_episode(suite, suite.train_task(0, 0))
    assert episode.support.way == 10
    assert len(episode.support.labels) == episode.n_query == 50


def test_options_are_in_the_id_and_typed() -> None:
    options = check_options(Glyphs, {"way": "5", "shot": "1", "query": "5"}, "suite 'glyphs'", "-S")
    suite = Glyphs(16, None, **options)
    assert suite.id == "glyphs@1+shot=1+way=5"
    check_id(suite)
    with pytest.raises(UsageError, match="-S way=many"):
        check_options(Glyphs, {"way": "many"}, "suite 'glyphs'", "-S")


def test_classes_of_the_splits_are_disjoint() -> None:
    splits = Glyphs(16, None).class_splits()
    names = [name for members in splits.values() for name in members]
    assert len(set(names)) == len(names)
    assert splits["test"][0] == "arabic/U+0621"


def test_training_uses_every_script_in_proportion() -> None:
    suite = Glyphs(16, None)
    sources = [suite.train_task(index, 3).source for index in range(2000)]
    assert set(sources) == set(SCRIPTS["train"])
    assert abs(sources.count("latin") / 2000 - 881 / 1762) < 0.05
    narrow = Glyphs(16, None, way=20)
    assert "coptic" not in {narrow.train_task(index, 3).source for index in range(1000)}


def test_sizes_share_their_tasks() -> None:
    small, large = Glyphs(32, None, way=3, shot=1, query=1), Glyphs(96, None, way=3, shot=1, query=1)
    task = small.tasks("test")["hebrew"][0]
    a, b = small.episode(task).support, large.episode(task).support
    assert a.labels.tolist() == b.labels.tolist()
    shrunk = b.images.float().reshape(3, 3, 32, 3, 32, 3).mean((3, 5))
    assert (shrunk - a.images).abs().mean() < 16


def test_large_images_are_drawn_in_parallel_and_alike() -> None:
    suite = Glyphs(160, None, way=3, shot=2, query=2)
    task = suite.train_task(0, 0)
    assert same(suite.episode(task), Glyphs(160, None, way=3, shot=2, query=2).episode(task))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"way": 40},
            DataError,
            "only 39 classes in the validation script 'lao' of glyphs, fewer than way=40",
        ),
        ({"way": 1}, UsageError, "way=1 is too small"),
        ({"tasks": 0}, UsageError, "tasks=0"),
    ],
)
def test_impossible_options(options: dict[str, int], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Glyphs(32, None, **options)


def test_unknown_tasks() -> None:
    suite = Glyphs(32, None)
    with pytest.raises(UsageError, match="is not of suite glyphs@1"):
        suite.episode(Task("glyphs@0", "arabic", "test", 0))
    with pytest.raises(UsageError, match="test source of glyphs@1 called 'latin'"):
        suite.episode(Task("glyphs@1", "latin", "test", 0))


def test_fonts_are_there() -> None:
    assert all(font_path(face).is_file() for face in range(len(FACES)))


def test_masks_fill_their_side() -> None:
    for character in ("A", "ك", "ჸ", "ᐃ"):
        mask = ink_mask(character, 0, 48)
        assert max(mask.shape) == 48
        assert mask.max() > 200
        assert mask[0].max() < 64


def test_contrast_is_enough_in_both_directions() -> None:
    gaps = []
    for values in RANDOM.random((500, N_UNIFORMS)):
        palette = draw_palette(Uniforms(values))
        gaps.append(luminance(list(palette.ink)) - luminance(list(palette.ground)))
    assert min(abs(gap) for gap in gaps) >= MIN_CONTRAST - 1e-6
    assert 0.1 < np.mean(np.array(gaps) > 0) < 0.5


@pytest.mark.parametrize("size", [8, 28, 600])
def test_drawings_show_ink_at_any_size(size: int) -> None:
    renderer = Renderer(size)
    letter = Letter("Ж", (0, 4, 8))
    for values in RANDOM.random((10, N_UNIFORMS)):
        image = renderer.draw(letter, values, RANDOM.random((PATCH, PATCH, 3)))
        assert image.shape == (size, size, 3)
        assert image.dtype == np.uint8
        assert image.std() > 5
