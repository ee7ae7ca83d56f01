"""ImageNet: small originals in the published layouts, with their duplicates, and every way they can be wrong."""

from __future__ import annotations

import io
import itertools
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lite_bench.datasets.conversion import imagenet
from lite_bench.datasets.conversion.engine import convert
from lite_bench.datasets.conversion.imagenet import ImageNet, ImageNetV2, read_duplicates
from lite_bench.datasets.conversion.originals import require_published
from lite_bench.datasets.conversion.plan import Conversion
from lite_bench.datasets.conversion.wordnet import build_graph, build_graphs, imagenet_wordnet
from lite_bench.datasets.meta_dataset.catalogue import published
from lite_bench.datasets.meta_dataset.specification import HierarchicalSpecification
from lite_bench.datasets.meta_dataset.specification_files import read_specification, write_specification
from lite_bench.datasets.tfrecords.examples import parse_example
from lite_bench.datasets.tfrecords.framing import scan, unframe
from lite_bench.harness.errors import DataError

TRAIN = ("n01440764", "n01443537", "n01530575")
CARNIVORES = ("n02085620", "n02123045")
DEVICES = ("n02666196", "n02672831", "n02676566")
NUMBERS = (9, 10, 100, 18, 2)  # in order of names: 10, 100, 18, 2, 9
ORDER = (10, 100, 18, 2, 9)
LISTS = {
    "Caltech101": "## File name in ImageNet   # File name in Caltech101\n"
    "n01443537/n01443537_18.JPEG    # beaver/image_0003_m.jpg\n"
    "n01443537/n01443537_18.JPEG    # beaver/image_0022.jpg\n",
    "Caltech256": "\nn01443537/n01443537_100.JPEG # 001.ak47/001_0085.jpg\n",
    "CUBirds": "# List\nn02085620/n02085620_9.JPEG  # Blue_Jay_0053_62744.jpg\n",
}
DUPLICATES = {"n01443537_18.JPEG", "n01443537_100.JPEG", "n02085620_9.JPEG"}


def picture(wn_id: str, number: int) -> bytes:
    """Draw an image; as in the real data set, not all are RGB JPEGs."""
    pixels = np.random.default_rng([int(wn_id[1:]), number]).integers(0, 256, (20 + number, 30, 3), np.uint8)
    mode = {2: "CMYK", 10: "L"}.get(number, "RGB")
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "PNG" if number == 100 else "JPEG")
    return buffer.getvalue()


def files() -> dict[str, dict[str, bytes]]:
    classes = (*DEVICES, *TRAIN, *CARNIVORES)
    return {wn_id: {f"{wn_id}_{n}.JPEG": picture(wn_id, n) for n in NUMBERS} for wn_id in classes}


def tar_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write_lists(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for other, text in LISTS.items():
        (folder / f"ImageNet_{other}_duplicates.txt").write_text(text)
    return folder


def tar_of_tars(folder: Path) -> None:
    tars = {f"{wn_id}.tar": tar_of(members) for wn_id, members in files().items()}
    (write_lists(folder) / "ILSVRC2012_img_train.tar").write_bytes(tar_of(tars))


def folder_of_tars(folder: Path) -> None:
    inside = write_lists(folder) / "ILSVRC2012_img_train"
    inside.mkdir()
    for wn_id, members in files().items():
        (inside / f"{wn_id}.tar").write_bytes(tar_of(members))


def folder_of_folders(folder: Path, name: str = "ILSVRC2012_img_train") -> None:
    inside = write_lists(folder) / name
    for wn_id, members in files().items():
        (inside / wn_id).mkdir(parents=True)
        for file, data in members.items():
            (inside / wn_id / file).write_bytes(data)
    (inside / ".DS_Store").touch()
    (inside / TRAIN[0] / "list.txt").touch()
    (inside / f"{TRAIN[0]}.tar").write_bytes(b"left over from unpacking")


def kaggle(folder: Path) -> None:
    folder_of_folders(folder, "ILSVRC/Data/CLS-LOC/train")


def as_stored(data: bytes) -> bytes:
    image = Image.open(io.BytesIO(data))
    if (image.format, image.mode) == ("JPEG", "RGB"):
        return data
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def check_images(conversion: Conversion, names: tuple[str, ...]) -> None:
    specification, originals = conversion.specification, files()
    assert specification.class_names == names
    for class_id, (name, plan) in enumerate(zip(names, conversion.classes, strict=True)):
        kept = [f"{name}_{n}.JPEG" for n in ORDER if f"{name}_{n}.JPEG" not in DUPLICATES]
        assert (plan.class_id, plan.count, specification.images[class_id]) == (class_id, len(kept), len(kept))
        images = list(pickle.loads(pickle.dumps(plan.images))())
        assert images == [as_stored(originals[name][file]) for file in kept]


@pytest.mark.parametrize("lay_out", [tar_of_tars, folder_of_tars, folder_of_folders, kaggle])
def test_plan(tmp_path: Path, lay_out: Callable[[Path], None]) -> None:
    lay_out(tmp_path)
    conversion = ImageNet(check_published=False).plan(tmp_path)
    check_images(conversion, (*TRAIN, *CARNIVORES, *DEVICES))
    specification = conversion.specification
    assert isinstance(specification, HierarchicalSpecification)
    assert specification.splits == {"train": range(3), "validation": range(3, 5), "test": range(5, 8)}
    assert specification.graphs == build_graphs(imagenet_wordnet(), [*TRAIN, *CARNIVORES, *DEVICES])


def test_plan_of_v2(tmp_path: Path) -> None:
    tar_of_tars(tmp_path)
    conversion = ImageNetV2(check_published=False).plan(tmp_path)
    check_images(conversion, tuple(sorted((*TRAIN, *CARNIVORES, *DEVICES))))
    specification = conversion.specification
    assert isinstance(specification, HierarchicalSpecification)
    assert specification.name == ImageNetV2().source == "ilsvrc_2012_v2"
    assert {split: len(ids) for split, ids in specification.splits.items() if ids} == {"train": 8}
    assert specification.graphs["train"] == build_graph(imagenet_wordnet(), [*TRAIN, *CARNIVORES, *DEVICES])


def test_conversion(tmp_path: Path) -> None:
    tar_of_tars(tmp_path / "tars")
    folder_of_folders(tmp_path / "folders")
    for name, workers in (("tars", 2), ("folders", 1)):
        report = convert(ImageNet(check_published=False), tmp_path / name, tmp_path / "out" / name, workers=workers)
        assert (report.classes, report.images) == (8, 37)
    records = tmp_path / "out" / "tars" / "1.tfrecords"
    assert records.read_bytes() == (tmp_path / "out" / "folders" / "1.tfrecords").read_bytes()
    data, starts = records.read_bytes(), scan(records, check=True)
    examples = [parse_example(unframe(data[a:b])) for a, b in itertools.pairwise(starts)]
    assert [example["label"][0] for example in examples] == [1, 1, 1]
    assert [example["image"][0] for example in examples] == [
        as_stored(picture("n01443537", number)) for number in (10, 2, 9)
    ]
    assert (
        read_specification(tmp_path / "out" / "tars")
        == ImageNet(check_published=False).plan(tmp_path / "folders").specification
    )


def test_wordnet_of_the_user(tmp_path: Path) -> None:
    """Files beside or among the classes, as Meta-Dataset wants them, are preferred to our own."""
    folder_of_folders(tmp_path)
    known = imagenet_wordnet()
    for place in (tmp_path / "ILSVRC2012_img_train", tmp_path):
        text = "".join(f"{p} {child}\n" for child, parents in known.parents.items() for p in parents)
        (place / "wordnet.is_a.txt").write_text(text)
        (place / "words.txt").write_text("".join(f"{n}\t{place.name}\n" for n in known.words))
        specification = ImageNet(check_published=False).plan(tmp_path).specification
        assert isinstance(specification, HierarchicalSpecification)
        assert specification.graphs["train"]["n01440764"].words == place.name
    (tmp_path / "words.txt").unlink()
    with pytest.raises(DataError, match=r"words\.txt cannot be read .*or remove both"):
        ImageNet(check_published=False).plan(tmp_path)


@pytest.mark.parametrize("source", ["ilsvrc_2012", "ilsvrc_2012_v2"])
def test_published_specification(tmp_path: Path, source: str) -> None:
    known = published(source)
    converter = {"ilsvrc_2012": ImageNet(), "ilsvrc_2012_v2": ImageNetV2()}[source]
    graphs = converter.graphs(imagenet_wordnet(), known.class_names)
    specification = HierarchicalSpecification(source, known.class_names, known.images, graphs)
    require_published(specification, tmp_path)
    imagenet._require_published_graphs(specification)
    write_specification(specification, tmp_path)
    assert read_specification(tmp_path) == specification
    fewer = replace(specification, graphs={**graphs, "train": dict(list(graphs["train"].items())[1:])})
    with pytest.raises(DataError, match=r"train graph of .* has \d+ nodes, .* not \d+, \d+ and \d+; remove wordnet"):
        imagenet._require_published_graphs(fewer)


def test_differing_from_the_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar_of_tars(tmp_path)
    with pytest.raises(DataError, match=r"CUBirds_duplicates\.txt name 3 images and not 403; download them again"):
        ImageNet().plan(tmp_path)
    monkeypatch.setattr(imagenet, "N_DUPLICATES", 3)
    message = r"img_train\.tar is not the published ilsvrc_2012: class 'n01440764' has 5 images, not 1300, .* 997 more"
    with pytest.raises(DataError, match=message):
        ImageNet().plan(tmp_path)


def test_duplicates(tmp_path: Path) -> None:
    write_lists(tmp_path)
    found = {other: read_duplicates(tmp_path / f"ImageNet_{other}_duplicates.txt") for other in LISTS}
    assert set().union(*found.values()) == DUPLICATES
    path = tmp_path / "ImageNet_CUBirds_duplicates.txt"
    for line in ("n01443537_18.JPEG", "n01443537/n01440764_18.JPEG", "<html>", "n01443537/n01443537_18.jpg"):
        path.write_text(f"# names\n\n{line}  # other\n")
        with pytest.raises(DataError, match=r"Line 3 of .*CUBirds_duplicates\.txt is not of the form .*; download"):
            read_duplicates(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"CUBirds_duplicates\.txt cannot be read .*; download it again from https"):
        read_duplicates(path)


def test_missing_originals(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ilsvrc_2012 needs ILSVRC2012_img_train\.tar or .*register"):
        ImageNet().plan(tmp_path)
    tar_of_tars(tmp_path)
    (tmp_path / "ImageNet_Caltech256_duplicates.txt").unlink()
    message = r"needs ImageNet_Caltech256_duplicates\.txt, which .*google-research/meta-dataset.*that Caltech256 has"
    with pytest.raises(DataError, match=message):
        ImageNetV2().plan(tmp_path)


@pytest.mark.parametrize("kept", [0.3, 0.8])
def test_truncated_tar(tmp_path: Path, kept: float) -> None:
    tar_of_tars(tmp_path)
    path = tmp_path / "ILSVRC2012_img_train.tar"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept) // 512 * 512 + 100])
    with pytest.raises(DataError, match=r"ILSVRC2012_img_train\.tar cannot be read \(.*\); download or unpack"):
        ImageNet(check_published=False).plan(tmp_path)


def test_truncated_tar_of_a_class(tmp_path: Path) -> None:
    folder_of_tars(tmp_path)
    path = tmp_path / "ILSVRC2012_img_train" / "n01443537.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"n01443537\.tar cannot be read \(.*\); download or unpack it again"):
        ImageNet(check_published=False).plan(tmp_path)


def test_no_classes(tmp_path: Path) -> None:
    (write_lists(tmp_path) / "train").mkdir()
    (tmp_path / "train" / "ILSVRC2012_val_00000001.JPEG").touch()
    with pytest.raises(DataError, match=r"train holds no classes named like n01440764 or n01440764\.tar; download"):
        ImageNet(check_published=False).plan(tmp_path)


def test_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of_folders(tmp_path)

    def denied(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(DataError, match=r"ILSVRC2012_img_train cannot be listed \(Permission denied\); make it read"):
        ImageNet(check_published=False).plan(tmp_path)


def test_compressed_tar(tmp_path: Path) -> None:
    write_lists(tmp_path)
    with tarfile.open(tmp_path / "ILSVRC2012_img_train.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("n01440764.tar"))
    with pytest.raises(DataError, match=r"n01440764\.tar in .* cannot be read in place; unpack .*img_train\.tar first"):
        ImageNet(check_published=False).plan(tmp_path)


def test_damaged_image(tmp_path: Path) -> None:
    tars = {f"{wn_id}.tar": members for wn_id, members in files().items()}
    tars["n01443537.tar"]["n01443537_9.JPEG"] = tars["n01443537.tar"]["n01443537_9.JPEG"][:400]
    outer = tar_of({name: tar_of(members) for name, members in tars.items()})
    (write_lists(tmp_path) / "ILSVRC2012_img_train.tar").write_bytes(outer)
    conversion = ImageNet(check_published=False).plan(tmp_path)
    message = r"The image n01443537_9\.JPEG in n01443537\.tar in .*ILSVRC2012_img_train\.tar is damaged .*; download"
    with pytest.raises(DataError, match=message):
        list(conversion.classes[1].images())


def test_class_outside_of_wordnet(tmp_path: Path) -> None:
    folder_of_tars(tmp_path)
    path = tmp_path / "ILSVRC2012_img_train" / "n99999999.tar"
    path.write_bytes(tar_of({"n99999999_1.JPEG": picture("n99999999", 1)}))
    with pytest.raises(DataError, match=r"The class n99999999 \(1 in all\) is not a synset of imagenet_wordnet\.json"):
        ImageNet(check_published=False).plan(tmp_path)
