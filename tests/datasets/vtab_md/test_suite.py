"""VTAB+MD: every row of the table of differences between its two versions, its tasks, groups and episodes."""

from __future__ import annotations

import errno
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lite_bench.datasets.meta_dataset.catalogue import published
from lite_bench.datasets.meta_dataset.specification import FlatSpecification, HierarchicalSpecification
from lite_bench.datasets.meta_dataset.specification_files import write_specification
from lite_bench.datasets.sampling import Rule
from lite_bench.datasets.vtab.tasks import PROFILES, Profile, task_named, tasks
from lite_bench.datasets.vtab_md.pixels import decode_jpeg, resize_aligned
from lite_bench.datasets.vtab_md.suite import VtabMd, train_suffix
from lite_bench.harness.assembly import build_suite
from lite_bench.harness.core import Task
from lite_bench.harness.errors import DataError, UnknownNameError, UsageError
from tests.datasets.suite_checks import all_images, queries, same

SIDE = 24
MD = ("omniglot", "aircraft", "cu_birds", "dtd", "quickdraw", "fungi", "traffic_sign", "mscoco")
OWN_TRAINING = {
    "lite": {"ilsvrc_2012", "omniglot", "aircraft", "cu_birds", "dtd", "quickdraw", "fungi", "mnist"},
    "official": {"ilsvrc_2012_v2", "aircraft", "cu_birds", "omniglot", "quickdraw", "dtd", "fungi"},
}


@pytest.fixture(scope="module")
def suites(standin: Path) -> dict[Profile, VtabMd]:
    return {version: VtabMd(SIDE, standin, version=version) for version in PROFILES}


# --- the table of differences, row by row


def test_both_versions_test_on_the_same_600_episodes_of_8_sources(suites: dict[Profile, VtabMd]) -> None:
    listed = {version: suite.tasks("test") for version, suite in suites.items()}
    for suite_tasks in listed.values():
        assert list(suite_tasks)[:8] == list(MD)
        assert all([task.index for task in suite_tasks[name]] == list(range(600)) for name in MD)
        assert [len(suite_tasks[task.name]) for task in tasks()] == [1] * 18


@pytest.mark.parametrize("version", PROFILES)
def test_training_sources_have_equal_chances(suites: dict[Profile, VtabMd], version: Profile) -> None:
    drawn = Counter(suites[version].train_task(index, 3).source for index in range(4000))
    assert set(drawn) == OWN_TRAINING[version]
    expected = 4000 / len(drawn)
    assert all(abs(count - expected) < 5 * np.sqrt(expected) for count in drawn.values())


def test_imagenet_is_flat_in_one_version_and_follows_wordnet_in_the_other(suites: dict[Profile, VtabMd]) -> None:
    flat = suites["lite"]._records["ilsvrc_2012"].specification
    graph = suites["official"]._records["ilsvrc_2012_v2"].specification
    assert isinstance(flat, FlatSpecification)
    assert flat.class_names == published("ilsvrc_2012_lite").class_names
    assert [len(ids) for ids in flat.splits.values()] == [1000, 0, 0]
    assert isinstance(graph, HierarchicalSpecification)
    task = next(t for i in range(99) if (t := suites["official"].train_task(i, 0)).source == "ilsvrc_2012_v2")
    drawn = set(suites["official"].plan(task).classes)
    assert any(drawn <= set(below) for below in graph.eligible["train"])


@pytest.mark.parametrize(
    ("name", "lite", "official"),
    [
        # splits of a source that TFDS has only a training part of; a test part; SmallNORB; SUN397
        ("eurosat", ("train[:1000]", "train[1000:]"), 0.2),
        ("dsprites_location", ("train[:1000]", "train[1000:]"), 0.1),
        ("smallnorb_azimuth", ("train[:1000]", "test"), 0.5),
    ],
)
def test_support_and_test_sets_of_the_versions(
    suites: dict[Profile, VtabMd], name: str, lite: tuple[str, str], official: float
) -> None:
    task = task_named(name)
    assert (task.selections["lite"].support, task.selections["lite"].test) == lite
    sizes = {}
    for version, suite in suites.items():
        episode = suite.episode(suite.tasks("test")[name][0])
        assert len(episode.support.labels) == 1000
        sizes[version] = episode.n_query
    whole = sizes["lite"] + (1000 if "train" in lite[1] else 0)
    assert sizes["official"] == pytest.approx(official * whole, abs=1)


def test_retinopathy_config_and_sun397_differ() -> None:
    retinopathy, sun = task_named("diabetic_retinopathy_detection"), task_named("sun397")
    assert (retinopathy.selections["lite"].config, retinopathy.selections["official"].config) == (
        "original",
        "btgraham-300",
    )
    assert sun.selections["lite"].folder
    assert not sun.selections["official"].folder


def test_sun397_support_covers_every_class_in_one_version_only(suites: dict[Profile, VtabMd]) -> None:
    episode = suites["lite"].episode(suites["lite"].tasks("test")["sun397"][0])
    assert episode.support.way == 397
    assert not torch.any(queries(episode).labels < 0)


def test_value_types_follow_the_resizing_of_the_versions(suites: dict[Profile, VtabMd]) -> None:
    for version, kind in (("lite", torch.uint8), ("official", torch.float32)):
        suite = suites[version]  # type: ignore[index]  # both are profiles
        assert suite.pixel_range == "signed"
        vtab = suite.episode(suite.tasks("test")["svhn_cropped"][0])
        assert vtab.support.images.dtype == next(iter(vtab.query)).images.dtype == kind
        meta = suite.episode(suite.tasks("test")["dtd"][0])
        assert meta.support.images.dtype == torch.float32
        assert not torch.equal(meta.support.images, meta.support.images.round())


# --- tasks, groups, choice of model


def test_groups_are_those_of_the_benchmark(suites: dict[Profile, VtabMd]) -> None:
    groups = suites["lite"].groups
    assert groups["MD-v2"] == MD
    assert [len(groups[name]) for name in ("VTAB", "natural", "specialized", "structured")] == [18, 6, 4, 8]
    assert set(groups["VTAB"]) == {*groups["natural"], *groups["specialized"], *groups["structured"]}


def test_validation_has_7_sources_of_200_tasks(suites: dict[Profile, VtabMd]) -> None:
    found = suites["lite"].tasks("validation")
    assert set(found) == set(MD) - {"traffic_sign"}
    assert all(len(listed) == 200 for listed in found.values())


def test_four_of_seven_sources_must_be_better() -> None:
    incumbent = dict.fromkeys("abcdefg", 0.5)
    assert VtabMd.improves(incumbent, None)
    assert not VtabMd.improves(dict.fromkeys("abcdefg", 0.0), None)
    for better in range(8):
        candidate = {name: 0.6 if position < better else 0.5 for position, name in enumerate("abcdefg")}
        assert VtabMd.improves(candidate, incumbent) == (better >= 4)


def test_names_say_version_and_options(standin: Path) -> None:
    assert VtabMd(None, standin).id == "vtab_md@lite"
    assert VtabMd(None, standin).image_size == 224
    assert build_suite("vtab_md@official", 32, standin, {}).id == "vtab_md@official"
    assert VtabMd(32, standin, way=5, shot=1, max_way_train=30, max_support_train=40).id == "vtab_md@lite+shot=1+way=5"
    with pytest.raises(UsageError, match="contradict each other"):
        build_suite("vtab_md@official", 32, standin, {"version": "lite"})
    with pytest.raises(UsageError, match=r"glyphs has the version 1, not 7; write --suite glyphs@1"):
        build_suite("glyphs@7", 32, None, {})


def test_training_caps_are_part_of_a_training_tasks_name(standin: Path) -> None:
    small = VtabMd(SIDE, standin, max_way_train=30, max_support_train=40)
    standard = VtabMd(SIDE, standin)
    names = [small.train_task(index, 0) for index in range(30)]
    assert {str(task).partition("+")[2].partition("/")[0] for task in names} == {"max_way=30+max_support=40"}
    assert train_suffix(Rule(None, None, None)) == ""
    for task in names:
        plan = small.plan(task)
        assert len(plan.classes) <= 30
        assert sum(map(len, plan.support)) <= 40
        with pytest.raises(UnknownNameError):
            standard.episode(task)
    assert Task.parse(str(names[0])) == names[0]


def test_fixed_way_and_shot_hold_for_meta_dataset_alone(standin: Path) -> None:
    suite = VtabMd(SIDE, standin, way=5, shot=5, query=4)
    episode = suite.episode(suite.tasks("test")["mscoco"][0])
    assert (episode.support.way, len(episode.support.labels), episode.n_query) == (5, 25, 20)
    assert len(suite.episode(suite.tasks("test")["kitti"][0]).support.labels) == 1000


# --- episodes


@pytest.mark.parametrize("source", [*MD[:2], "mscoco"])
def test_an_episode_is_what_its_plan_says(suites: dict[Profile, VtabMd], source: str) -> None:
    suite = suites["lite"]
    task = suite.tasks("test")[source][7]
    episode, plan, records = suite.episode(task), suite.plan(task), suite._records[source]
    expected: Counter[tuple[int, bytes]] = Counter()
    for part in (plan.support, plan.query):
        for label, (class_id, items) in enumerate(zip(plan.classes, part, strict=True)):
            for data in records.images(class_id, items):
                image = resize_aligned(decode_jpeg(data, "a record"), SIDE)
                expected[label, image.tobytes()] += 1
    labels = torch.cat([episode.support.labels, queries(episode).labels]).tolist()
    found = Counter((label, image.numpy().tobytes()) for label, image in zip(labels, all_images(episode), strict=True))
    assert found == expected
    assert episode.n_query == sum(map(len, plan.query))


@given(index=st.integers(0, 10**6), which=st.integers(0, 7))
def test_support_and_query_never_share_an_image(suites: dict[Profile, VtabMd], index: int, which: int) -> None:
    suite = suites["lite"]
    for task in (Task(suite.id, MD[which], "test", index), suite.train_task(index, 0)):
        plan = suite.plan(task)
        for support, query in zip(plan.support, plan.query, strict=True):
            assert not set(support) & set(query)
            assert len(set(support)) == len(support) >= 1
            assert len(set(query)) == len(query) >= 1


@pytest.mark.parametrize("name", ["fungi", "kitti", "sun397", "dsprites_orientation"])
def test_an_episode_depends_on_its_task_alone(standin: Path, suites: dict[Profile, VtabMd], name: str) -> None:
    task = suites["lite"].tasks("test")[name][0]
    suites["lite"].episode(suites["lite"].tasks("test")["dtd"][1])
    assert same(suites["lite"].episode(task), VtabMd(SIDE, standin).episode(task))


def test_vtab_queries_stream_and_can_be_gone_through_again(suites: dict[Profile, VtabMd]) -> None:
    episode = suites["lite"].episode(suites["lite"].tasks("test")["clevr_count"][0])
    first, second = ([batch.labels for batch in episode.query] for _ in range(2))
    assert len(first) > 1
    assert torch.equal(torch.cat(first), torch.cat(second))
    assert sum(map(len, first)) == episode.n_query


# --- what may be wrong


def make(suite: VtabMd, source: str, n: int) -> None:
    """Make the first ``n`` test episodes of ``source``."""
    for task in suite.tasks("test")[source][:n]:
        suite.episode(task)


def test_missing_sources_are_normal(tmp_path: Path, standin: Path) -> None:
    (tmp_path / "records").mkdir()
    shutil.copytree(standin / "records" / "dtd", tmp_path / "records" / "dtd")
    suite = VtabMd(SIDE, tmp_path)
    missing = {source for source, data in suite.source_data.items() if data.missing}
    assert len(missing) == 25
    assert "dtd" not in missing
    assert "25 of 26 test sources are missing" in suite.notes[0]
    assert "Validation in training has 1 of its 7 sources (dtd)" in suite.notes[1]
    assert "Stand-in data" in suite.notes[2]
    assert list(suite.tasks("validation")) == ["dtd"]
    with pytest.raises(DataError, match=r"needs 8 sources, and 7 cannot be used .* -S train_sources=dtd\."):
        suite.train_task(0, 0)
    assert VtabMd(SIDE, tmp_path, train_sources="dtd").train_task(0, 0).source == "dtd"
    with pytest.raises(UnknownNameError, match="training source called 'cifar100'"):
        VtabMd(SIDE, tmp_path, train_sources="cifar100")
    with pytest.raises(UsageError, match="names a source twice"):
        VtabMd(SIDE, tmp_path, train_sources="dtd,dtd")


def test_data_may_be_named_by_variables(monkeypatch: pytest.MonkeyPatch, standin: Path) -> None:
    assert VtabMd.configured(None) is None
    monkeypatch.setenv("RECORDS", str(standin / "records"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(standin / "tfds"))
    monkeypatch.setenv("SUN397_ROOT", str(standin / "sun397"))
    assert "11 Meta-Dataset sources" in (VtabMd.configured(None) or "")
    assert not any(data.missing for data in VtabMd(SIDE, None).source_data.values())


@pytest.mark.parametrize("folder", [".", "meta_dataset"])
@pytest.mark.parametrize("variable", ["RECORDS", "META_DATASET_ROOT"])
def test_a_source_checkout_is_not_data(
    variable: str, folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "meta_dataset").mkdir()
    (tmp_path / "setup.py").touch()
    monkeypatch.setenv(variable, str(tmp_path / folder))
    text = VtabMd(SIDE, None).source_data["dtd"].missing
    assert "checkout of Meta-Dataset's source code" in text
    assert "RECORDS" in text


def test_a_source_with_other_counts_or_too_few_images_is_not_used(tmp_path: Path, standin: Path) -> None:
    folder = tmp_path / "dtd"
    shutil.copytree(standin / "records" / "dtd", folder)
    suite = VtabMd(SIDE, tmp_path)
    fingerprint = suite.source_data["dtd"].fingerprint
    stored = json.loads((folder / "dataset_spec.json").read_text())
    stored["images_per_class"]["41"] += 1
    (folder / "dataset_spec.json").write_text(json.dumps(stored))
    changed = VtabMd(SIDE, tmp_path)
    assert changed.source_data["dtd"].fingerprint != fingerprint
    with pytest.raises(DataError, match=r"41.tfrecords holds 24 records, but the specification says 25"):
        make(changed, "dtd", 20)
    specification = suite._records["dtd"].specification
    few = FlatSpecification("dtd", specification.class_names, (1,) * 47, {"train": 33, "validation": 7, "test": 7})
    write_specification(few, folder)
    assert "has 1 images, but a task needs 2 of each class" in VtabMd(SIDE, tmp_path).source_data["dtd"].missing


def test_a_damaged_record_names_file_and_place(tmp_path: Path, standin: Path) -> None:
    shutil.copytree(standin / "records" / "dtd", tmp_path / "dtd")
    for path in (tmp_path / "dtd").glob("4?.tfrecords"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    suite = VtabMd(SIDE, tmp_path)
    with pytest.raises(DataError, match=r"4\d\.tfrecords.* byte \d+"):
        make(suite, "dtd", 20)


def test_the_folder_of_a_single_source_is_not_a_place_to_look_in(
    monkeypatch: pytest.MonkeyPatch, standin: Path
) -> None:
    own = standin / "records" / "dtd"
    assert f"{own} is the folder of a single source" in VtabMd(SIDE, own).source_data["dtd"].missing
    monkeypatch.setenv("RECORDS", str(own))
    assert "name the folder above it as --data-dir or RECORDS" in VtabMd(SIDE, None).source_data["mscoco"].missing


def test_a_folder_that_may_not_be_looked_into_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, standin: Path
) -> None:
    shutil.copytree(standin / "records" / "dtd", tmp_path / "records" / "dtd")

    def refuse(method: Callable[..., Any]) -> Callable[..., Any]:
        def refused(path: Path, *args: Any, **options: Any) -> Any:
            if tmp_path / "records" in path.parents:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return method(path, *args, **options)

        return refused

    for name in ("stat", "open", "read_text"):
        monkeypatch.setattr(Path, name, refuse(getattr(Path, name)))
    missing = VtabMd(SIDE, tmp_path).source_data["dtd"].missing
    assert f"{tmp_path / 'records' / 'dtd' / 'dataset_spec.json'} cannot be read (Permission denied)" in missing


def test_a_source_that_is_not_the_published_one_is_not_used_for_testing(tmp_path: Path, standin: Path) -> None:
    folder = tmp_path / "records" / "dtd"
    shutil.copytree(standin / "records" / "aircraft", folder)
    assert not VtabMd(SIDE, tmp_path).source_data["dtd"].missing
    (folder / "synthetic.json").unlink()
    suite = VtabMd(SIDE, tmp_path, train_sources="dtd")
    difference = f"{folder}: has 70 / 15 / 15 classes for train / validation / test; dtd has 33 / 7 / 7."
    assert suite.source_data["dtd"].missing.startswith(difference)
    (note,) = (note for note in suite.notes if note.startswith("Not as published"))
    assert difference in note


def test_caps_of_training_tasks_that_contradict_each_other_are_named() -> None:
    with pytest.raises(UsageError, match=r"-S max_support_train=500 .* max_way_train=600 classes; raise it"):
        VtabMd(SIDE, None, max_way_train=600)
