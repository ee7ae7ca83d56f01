"""SUN397's folder in the LITE profile: its split, its support set, and what is refused."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import random_split

from lite_bench.datasets.vtab import sun397
from lite_bench.datasets.vtab.sun397 import Sun397Folder, draw_support, find_folder, split_images, split_sizes
from lite_bench.harness.errors import DataError


def test_split_sizes_round_halves_to_even() -> None:
    assert split_sizes(108754) == (76128, 10875, 21751)
    assert split_sizes(5) == (4, 0, 1)
    assert split_sizes(15)[1] == 2
    assert split_sizes(25)[1] == 2


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 3000))
def test_split_is_torchs_random_split(n: int) -> None:
    data: Any = range(n)
    parts: list[Any] = random_split(data, split_sizes(n), generator=torch.Generator().manual_seed(15))
    for part, found in zip(parts, split_images(n).values(), strict=True):
        assert list(part.indices) == found.tolist()


@settings(max_examples=40, deadline=None)
@given(way=st.integers(1, 60), per_class=st.integers(1, 40), n=st.integers(1, 600), seed=st.integers(0, 99))
def test_support_covers_the_classes(way: int, per_class: int, n: int, seed: int) -> None:
    labels = np.arange(way * per_class) % way
    drawn = draw_support(labels, way, n, np.random.default_rng(seed))
    assert len(drawn) == len(set(drawn.tolist())) == min(n, len(labels))
    assert drawn.tolist() == draw_support(labels, way, n, np.random.default_rng(seed)).tolist()
    kept = labels[drawn].tolist()
    covered = next((i + 1 for i in range(len(kept)) if len(set(kept[: i + 1])) == way), None)
    if n >= min(2, per_class) * way:
        assert covered is not None
    assert max(Counter(kept[:covered]).values()) <= 2 or covered is None


def drawn_one_by_one(labels: np.ndarray, way: int, n: int, order: list[int]) -> list[int]:
    """Follow the code of cambridge-mlg/LITE step by step."""
    kept: list[int] = []
    counts: Counter[int] = Counter()
    waiting = iter(order)
    for _ in range(10_000):
        if len(counts) == way:
            break
        position = next(waiting)
        if counts[int(labels[position])] < 2:
            kept.append(position)
            counts[int(labels[position])] += 1
    while len(kept) < n:
        kept.append(next(waiting))
    return kept[:n]


@settings(max_examples=40, deadline=None)
@given(way=st.integers(1, 40), n=st.integers(80, 300), seed=st.integers(0, 999))
def test_support_is_what_drawing_one_by_one_gives(way: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(way, 4000, p=rng.dirichlet(np.full(way, 2.0)))
    labels[: 20 * way] = np.repeat(np.arange(way), 20)
    order = np.random.RandomState(seed).permutation(len(labels)).tolist()
    drawn = draw_support(labels, way, n, np.random.RandomState(seed)).tolist()
    assert drawn == drawn_one_by_one(labels, way, n, order)


def test_support_of_a_set_as_uneven_as_the_real_one() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(397, 76128, p=rng.dirichlet(np.full(397, 30.0)))
    labels[:397] = np.arange(397)
    drawn = draw_support(labels, 397, 1000, rng)
    assert len(np.unique(labels[drawn])) == 397
    plain = np.unique(labels[rng.permutation(len(labels))[:1000]])
    assert len(plain) < 397


def test_drawing_stops_after_ten_thousand() -> None:
    labels = np.zeros(30000, np.int64)
    order = np.random.default_rng(3).permutation(len(labels))
    drawn = draw_support(labels, 2, 1000, np.random.default_rng(3))
    assert drawn[:2].tolist() == order[:2].tolist()
    assert drawn[2:].tolist() == order[10000:10998].tolist()


def test_folder(standin: Path) -> None:
    folder = Sun397Folder(find_folder(standin), np.random.default_rng(0))
    assert folder.synthetic
    n = 397 * 8
    assert folder.sizes == {"train": 2223, "validation": 318, "test": n - 2223 - 318, "support": 1000}
    paths = {split: {folder.path(split, i) for i in range(folder.sizes[split])} for split in folder.sizes}
    assert paths["support"] < paths["train"]
    assert paths["train"].isdisjoint(paths["test"])
    names = sorted(path.name for path in folder.folder.iterdir() if path.is_dir() and path.name != "tfds")
    for position in range(0, 1000, 97):
        data, label = folder.example("support", position)
        assert data == folder.path("support", position).read_bytes()
        assert names[label] == folder.path("support", position).parent.name
    assert {folder.example("support", i)[1] for i in range(1000)} == set(range(397))
    frozen = Sun397Folder(find_folder(standin), np.random.RandomState(0))
    assert frozen.sizes == folder.sizes
    again = Sun397Folder(find_folder(standin), np.random.default_rng(0))
    other = Sun397Folder(find_folder(standin), np.random.default_rng(1))
    assert [again.path("support", i) for i in range(9)] == [folder.path("support", i) for i in range(9)]
    assert [other.path("support", i) for i in range(9)] != [folder.path("support", i) for i in range(9)]
    assert [other.path("test", i) for i in range(9)] == [folder.path("test", i) for i in range(9)]
    assert again.fingerprint == other.fingerprint
    assert len(folder.fingerprint) == 64


def make_folder(root: Path, n_classes: int, marker: bool = False) -> Path:
    for number in range(n_classes):
        (root / f"class_{number:03d}").mkdir(parents=True)
        (root / f"class_{number:03d}" / "sun_a.jpg").write_bytes(b"x")
    if marker:
        (root / "synthetic.json").write_text("{}")
    return root


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"needs a place .* SUN397_ROOT"):
        find_folder(None)
    with pytest.raises(DataError, match=r"was not found in .*data/sun397"):
        find_folder(tmp_path / "data")
    make_folder(tmp_path / "data" / "sun397", 12)
    with pytest.raises(DataError, match="holds 12 folders and SUN397 has 397 classes"):
        find_folder(tmp_path / "data")
    monkeypatch.setenv("SUN397_ROOT", str(make_folder(tmp_path / "other", 397)))
    assert find_folder(tmp_path / "data") == find_folder(None) == tmp_path / "other"
    (tmp_path / "other" / ".cache").mkdir()
    (tmp_path / "other" / "tfds").mkdir()
    assert find_folder(None) == tmp_path / "other"


def test_what_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="holds 397 images, and SUN397 has 108754"):
        Sun397Folder(make_folder(tmp_path / "few", 397), rng)
    with pytest.raises(DataError, match="holds 30 classes, not 397"):
        Sun397Folder(make_folder(tmp_path / "thirty", 30), rng)
    folder = Sun397Folder(make_folder(tmp_path / "gone", 397, marker=True), rng)
    shutil.rmtree(folder.path("test", 0).parent)
    with pytest.raises(DataError, match=r"sun_a\.jpg cannot be read .*while it is in use"):
        folder.example("test", 0)


def test_real_number_of_images_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sun397, "N_IMAGES", 397)
    folder = Sun397Folder(make_folder(tmp_path, 397), np.random.default_rng(0))
    assert not folder.synthetic
