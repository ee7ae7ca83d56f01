"""Records, pixels and prepared datasets beside TensorFlow itself, which nothing else here needs.

Runs where the extra ``tfds-prepare`` is installed: ``pytest -m slow tests/datasets/test_against_tensorflow.py``.
"""

from __future__ import annotations

import dataclasses
import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from lite_bench.datasets.tfrecords.examples import Encodable, encode_example, parse_example
from lite_bench.datasets.tfrecords.framing import frame, scan
from lite_bench.datasets.tfrecords.reading import RecordReader
from lite_bench.datasets.vtab import pixels, preparation
from lite_bench.datasets.vtab.order import tfds_order
from lite_bench.datasets.vtab.preparation import prepare
from lite_bench.datasets.vtab.prepared import PreparedDataset
from lite_bench.datasets.vtab.tasks import dataset_named
from lite_bench.datasets.vtab_md.pixels import decode_jpeg, resize_aligned
from lite_bench.harness.errors import DataError

tf: Any = pytest.importorskip("tensorflow", reason="TensorFlow is not installed; it is the extra tfds-prepare")

# TensorFlow and TFDS warn about themselves and about numpy.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

Example = dict[str, Any]
SIZES = [(375, 500, 126), (500, 333, 84), (105, 105, 84), (28, 28, 224), (1200, 800, 84), (37, 301, 126)]
FLOAT32 = 3e-3
"""Of a grey level: positions are float32 there as here."""
FAST_DCT = 10
"""Grey levels, at most, between the accurate DCT and the fast one."""


@pytest.fixture(autouse=True)
def _own_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LITE_BENCH_HOME", str(tmp_path / "lite-bench"))


def noise(*shape: int, high: int = 256) -> np.ndarray:
    return np.random.default_rng(shape).integers(0, high, shape).astype(np.uint8)


def photo(height: int, width: int) -> np.ndarray:
    """Blurred colours with grain, uint8 [h, w, 3]."""
    blurred = np.asarray(Image.fromarray(noise(7, 9, 3)).resize((width, height), Image.Resampling.BICUBIC), np.float64)
    grain = np.random.default_rng([height, width]).normal(0, 12, blurred.shape)
    return np.clip(blurred + grain, 0, 255).astype(np.uint8)


def encoded(array: np.ndarray, kind: str, mode: str | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


# ---------------------------------------------------------------- records


def payloads() -> list[bytes]:
    rng = np.random.default_rng(0)
    return [rng.bytes(n) for n in (*range(20), 255, 256, 4096, 70_000, 1 << 20, 3)]


def test_record_files_are_those_of_tensorflow(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs.tfrecords", tmp_path / "ours.tfrecords"
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for payload in payloads():
            writer.write(payload)
    ours.write_bytes(b"".join(map(frame, payloads())))
    assert theirs.read_bytes() == ours.read_bytes()
    assert list(tf.data.TFRecordDataset(str(ours)).as_numpy_iterator()) == payloads()
    assert len(scan(theirs, check=True)) == len(payloads()) + 1
    with RecordReader() as reader:
        assert reader.count(theirs) == len(payloads())
        backwards = range(len(payloads()) - 1, -1, -1)
        assert reader.records(theirs, backwards) == payloads()[::-1]


def test_both_refuse_a_damaged_record(tmp_path: Path) -> None:
    path = tmp_path / "damaged.tfrecords"
    content = bytearray(b"".join(map(frame, (b"first", b"second"))))
    content[-6] ^= 1
    path.write_bytes(content)
    with RecordReader() as reader, pytest.raises(DataError, match="fails its checksum at byte 21"):
        reader.records(path, (0, 1))
    with pytest.raises(tf.errors.DataLossError):
        list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())


def test_examples_parse_both_ways() -> None:
    bytes_list, int_list, float_list = [b"", b"\xff\xd8", b"x" * 300], [0, -1, 2**63 - 1, -(2**63)], [0.5, -1e30, 1e-45]
    feature = tf.train.Feature
    theirs = {
        "image": feature(bytes_list=tf.train.BytesList(value=bytes_list)),
        "label": feature(int64_list=tf.train.Int64List(value=int_list)),
        "scale": feature(float_list=tf.train.FloatList(value=float_list)),
        "no ints": feature(int64_list=tf.train.Int64List(value=[])),
        "no kind": feature(),
    }
    message = tf.train.Example(features=tf.train.Features(feature=theirs))
    found = parse_example(message.SerializeToString())
    assert found.keys() == theirs.keys()
    assert found["image"] == bytes_list
    assert found["no kind"] == []
    np.testing.assert_array_equal(found["label"], np.array(int_list, np.int64), strict=True)
    np.testing.assert_array_equal(found["scale"], np.array(float_list, np.float32), strict=True)
    np.testing.assert_array_equal(found["no ints"], np.array([], np.int64), strict=True)

    ours = encode_example(found)
    assert tf.train.Example.FromString(ours) == message
    kinds = {"image": tf.string, "label": tf.int64, "scale": tf.float32, "no ints": tf.int64}
    parsed = tf.io.parse_single_example(ours, {name: tf.io.VarLenFeature(kind) for name, kind in kinds.items()})
    assert parsed["image"].values.numpy().tolist() == bytes_list
    assert parsed["label"].values.numpy().tolist() == int_list
    assert parsed["no ints"].values.numpy().tolist() == []


def test_examples_are_the_same_bytes() -> None:
    # A protocol buffer may be serialised in any order; of one feature there is only one.
    values: dict[str, Encodable] = {"image": [b"abc", b""], "label": [300, -1], "scale": [0.5, 2.0]}
    for name, value in values.items():
        ours = encode_example({name: value})
        assert tf.train.Example.FromString(ours).SerializeToString() == ours


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize(("height", "width", "size"), SIZES)
@pytest.mark.parametrize("picture", [photo, lambda height, width: noise(height, width, 3)])
def test_the_way_of_meta_dataset(picture: Callable[[int, int], np.ndarray], height: int, width: int, size: int) -> None:
    data = encoded(picture(height, width), "JPEG", quality=90, subsampling=2)
    decoded = decode_jpeg(data, "a test")
    assert (decoded == tf.image.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE").numpy()).all()
    ours = resize_aligned(decoded, size).transpose(1, 2, 0)

    def theirs(dct_method: str) -> np.ndarray:
        image = tf.image.decode_jpeg(data, channels=3, dct_method=dct_method)
        resized = tf.compat.v1.image.resize_bilinear(image[None], (size, size), align_corners=True)[0]
        return np.asarray(resized.numpy())

    assert ours.dtype == theirs("INTEGER_ACCURATE").dtype
    np.testing.assert_allclose(ours, theirs("INTEGER_ACCURATE"), rtol=0, atol=1e-4)
    # The departure that docs/vtab_md.md states: by default TensorFlow decodes with the fast DCT.
    difference = np.abs(ours - theirs(""))
    assert difference.mean() < 1.5
    assert difference.max() <= FAST_DCT


@pytest.mark.parametrize(("height", "width", "size"), SIZES)
def test_the_way_of_vtab(height: int, width: int, size: int) -> None:
    data = encoded(noise(height, width, 3), "PNG")
    image = tf.io.decode_image(data, channels=3)
    theirs = tf.image.resize(image, (size, size), method="bilinear", antialias=False).numpy()
    ours = pixels.bilinear(data, size).transpose(1, 2, 0)
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=FLOAT32)


TURNED = Image.Exif()
TURNED[0x112] = 6
PICTURES = {
    "grey": encoded(noise(40, 30), "PNG"),
    "two greys": encoded(noise(40, 30, high=2) * np.uint8(255), "PNG", "1"),
    "alpha": encoded(noise(40, 30, 4), "PNG"),
    "grey and alpha": encoded(noise(40, 30, 2), "PNG"),
    "palette": encoded(noise(40, 30, 3), "PNG", "P"),
    "transparent palette": encoded(noise(40, 30, 3), "PNG", "P", transparency=3),
    "16 bits": encoded(noise(40, 30).astype(np.uint16) * 257 + 100, "PNG"),
    "bitmap": encoded(noise(40, 30, 3), "BMP"),
    "transparent colour": encoded(noise(40, 30, 3), "PNG", transparency=(1, 2, 3)),
    "animation": encoded(noise(40, 30, 3), "GIF", "P"),
    "JPEG": encoded(photo(40, 30), "JPEG"),
    "grey JPEG": encoded(photo(40, 30), "JPEG", "L"),
    "CMYK JPEG": encoded(photo(40, 30), "JPEG", "CMYK"),
    "turned JPEG": encoded(photo(40, 30), "JPEG", exif=TURNED),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_decoding_to_three_channels(kind: str) -> None:
    theirs = tf.io.decode_image(PICTURES[kind], channels=3, expand_animations=False).numpy()
    ours = np.asarray(pixels.decode_rgb(PICTURES[kind]))
    assert ours.shape == theirs.shape == (40, 30, 3)
    assert np.abs(ours.astype(int) - theirs).max() <= (FAST_DCT if "JPEG" in kind else 0)


# ---------------------------------------------------------------- datasets that TFDS wrote

# Name and version, and how the keys of the builder look.
BUILDERS = [
    ("cifar100:3.0.2", "{}"),
    ("clevr:3.1.0", "CLEVR_train_{:06d}.png"),
    ("dsprites:2.0.0", "{}"),
    ("kitti:3.3.0", "{:06d}.png"),
    ("smallnorb:2.0.0", "{}"),
]
N_EXAMPLES, N_SHARDS = 60, 3


def made_up(feature: Any, rng: np.random.Generator) -> Any:
    """Draw a value of any feature; a sequence has 0 to 3 elements."""
    match feature:
        case tfds.features.Image():
            height, width, channels = (extent or int(rng.integers(20, 40)) for extent in feature.shape)
            return io.BytesIO(encoded(rng.integers(0, 256, (height, width, channels), np.uint8).squeeze(), "PNG"))
        case tfds.features.ClassLabel():
            return int(rng.integers(feature.num_classes))
        case tfds.features.BBoxFeature():
            (top, bottom), (left, right) = np.sort(rng.random((2, 2))).tolist()
            return tfds.features.BBox(ymin=top, xmin=left, ymax=bottom, xmax=right)
        case tfds.features.Text():
            return f"{rng.integers(1000)} €"
        case tfds.features.FeaturesDict():
            return {name: made_up(part, rng) for name, part in feature.items()}
        case tfds.features.Sequence():
            return [made_up(feature.feature, rng) for _ in range(rng.integers(4))]
    return rng.random(feature.shape).astype(np.float32)


def flat(example: Example) -> dict[str, np.ndarray]:
    """Name the members of groups as ``group/member`` and lose the shapes, as records do."""
    values: dict[str, np.ndarray] = {}
    for name, value in example.items():
        members = {f"{name}/{member}": part for member, part in value.items()} if isinstance(value, dict) else {}
        values |= {key: np.ravel(part) for key, part in (members or {name: value}).items()}
    return values


def read(dataset: PreparedDataset, split: str, position: int, names: list[str]) -> dict[str, np.ndarray]:
    return {name: np.ravel(value) for name, value in dataset.example(split, position, names).items()}


def assert_equal(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.tolist() == theirs[name].tolist(), name


Written = tuple[Path, Any, list[Example], list[str]]


@pytest.fixture(params=BUILDERS, ids=lambda param: param[0])
def written(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Written]:
    """Has TFDS write made-up examples in a format: gives folder, builder, and examples and keys as generated."""
    name, template = request.param
    keys = [template.format(number) for number in range(N_EXAMPLES)]

    def write(file_format: Literal["tfrecord", "array_record"]) -> Written:
        builder: Any = tfds.builder(name, data_dir=tmp_path / file_format, file_format=file_format)
        rng = np.random.default_rng(0)
        examples = [made_up(builder.info.features, rng) for _ in keys]
        generated = dict(zip(keys, examples, strict=True))
        monkeypatch.setattr(type(builder), "_split_generators", lambda *_: {"train": iter(generated.items())})
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=N_SHARDS))
        return Path(builder.data_path), builder, examples, keys

    return write


def test_a_dataset_in_tfrecord_format(written: Callable[..., Written]) -> None:
    folder, builder, examples, keys = written("tfrecord")
    ours = PreparedDataset(folder)
    assert (ours.format, ours.sizes) == ("tfrecord", {"train": N_EXAMPLES})
    assert len(ours.file_paths()) == N_SHARDS
    ours.check_files(["train"])

    # By default TFDS mixes the files while it reads them.
    one_by_one = tfds.ReadConfig(interleave_cycle_length=1)
    options: Any = {"split": "train", "shuffle_files": False, "read_config": one_by_one}
    theirs = list(tfds.as_numpy(builder.as_dataset(**options)))
    undecoded = builder.as_dataset(**options, decoders={"image": tfds.decode.SkipDecoding()})
    names = [name for name in flat(theirs[0]) if "question" not in name and name != "image2"]
    order = tfds_order("train", keys)
    for position, (example, encoded_example) in enumerate(zip(theirs, tfds.as_numpy(undecoded), strict=True)):
        found = read(ours, "train", position, names)
        assert_equal(found, {name: flat(encoded_example)[name] for name in names})
        image = found["image"].item()
        assert image == examples[order[position]]["image"].getvalue()
        channels = example["image"].shape[2]
        decode = pixels.decode_grey if channels == 1 else pixels.decode_rgb
        assert (np.asarray(decode(image)).reshape(example["image"].shape) == example["image"]).all()
    if "objects" in theirs[0]:
        assert {len(next(iter(example["objects"].values()))) for example in theirs} == set(range(4))


def test_a_slice_has_the_same_examples_however_tfds_mixes_files(written: Callable[..., Written]) -> None:
    folder, builder, _, _ = written("tfrecord")
    ours = PreparedDataset(folder)
    undecoded = {"image": tfds.decode.SkipDecoding()}
    slices = {"train[:45]": range(45), "train[90%:]": range(54, 60), "train[10:50]": range(10, 50)}
    for part, positions in slices.items():
        theirs = builder.as_dataset(split=part, shuffle_files=False, decoders=undecoded)
        images = sorted(example["image"] for example in tfds.as_numpy(theirs))
        assert images == sorted(read(ours, "train", position, ["image"])["image"].item() for position in positions)


def test_a_dataset_in_both_formats_is_one(written: Callable[..., Written]) -> None:
    first, second = (PreparedDataset(written(file_format)[0]) for file_format in ("tfrecord", "array_record"))
    assert (first.format, second.format) == ("tfrecord", "array_record")
    assert first.fingerprint == second.fingerprint
    for position in range(N_EXAMPLES):
        assert_equal(read(first, "train", position, ["image"]), read(second, "train", position, ["image"]))


# ---------------------------------------------------------------- preparation, from files like the original ones


def offline(monkeypatch: pytest.MonkeyPatch, files: Any) -> None:
    """Have TFDS take ``files`` for what it would download: one path, or paths by name."""
    for method in ("download", "download_and_extract"):
        monkeypatch.setattr(tfds.download.DownloadManager, method, lambda *_: files)


def stored(folder: Path, split: str, *names: str) -> list[list[Any]]:
    dataset = PreparedDataset(folder)
    assert dataset.format == "array_record"
    assert not dataset.synthetic
    rows = (read(dataset, split, position, list(names)) for position in range(dataset.n_examples(split)))
    return [[row[name].item() for name in names] for row in rows]


def resisc45_folder(manual: Path, per_class: int) -> dict[str, tuple[int, bytes, bytes]]:
    """Write noise as RESISC45 is unpacked; gives label, file name and content by key."""
    made: dict[str, tuple[int, bytes, bytes]] = {}
    for label, title in enumerate(tfds.builder("resisc45", data_dir=manual).info.features["label"].names):
        folder = manual / "NWPU-RESISC45" / title
        folder.mkdir(parents=True)
        for number in range(1, per_class + 1):
            path = folder / f"{title}_{number:03d}.jpg"
            path.write_bytes(encoded(noise(256, 256, 3) ^ np.uint8(label), "JPEG", quality=50))
            made[f"{title}_{path.name}"] = label, path.name.encode(), path.read_bytes()
    return made


def test_preparing_from_a_manual_folder(tmp_path: Path) -> None:
    manual, output = tmp_path / "manual", tmp_path / "data"
    with pytest.raises(DataError, match=r"could not prepare resisc45 in .*; https://www\.tensorflow\.org/.*/resisc45 "):
        prepare("resisc45", manual=tmp_path, output=output)
    made = resisc45_folder(manual, 2)
    prepare("resisc45", manual=manual, output=output)
    found = stored(output / "resisc45" / "3.0.0", "train", "label", "filename", "image")
    examples = list(made.values())
    assert found == [list(examples[number]) for number in tfds_order("train", made)]


def test_a_whole_copy_is_kept_and_an_incomplete_one_is_not_called_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "data"
    resisc45_folder(tmp_path, 1)
    prepare("resisc45", manual=tmp_path, output=output)
    with pytest.raises(DataError, match=r"has 45 examples in 'train', and resisc45 has 31500; .* Delete .* first"):
        prepare("resisc45", manual=tmp_path, output=output)

    small = dataclasses.replace(dataset_named("resisc45"), splits={"train": (45,)})
    monkeypatch.setattr(preparation, "dataset_named", lambda _: small)
    (file,) = PreparedDataset(output / "resisc45" / "3.0.0").file_paths()
    written = file.stat().st_mtime_ns
    prepare("resisc45", manual=None, output=output)
    assert file.stat().st_mtime_ns == written
    file.unlink()
    with pytest.raises(DataError, match=r"1 of 1 files are missing.* Delete .* first"):
        prepare("resisc45", manual=tmp_path, output=output)


def test_preparing_cifar100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "original" / "cifar-100-binary"
    folder.mkdir(parents=True)
    (folder / "coarse_label_names.txt").write_text("\n".join(f"coarse {i}" for i in range(20)))
    (folder / "fine_label_names.txt").write_text("\n".join(f"fine {i}" for i in range(100)))
    rows = noise(150, 3074)
    rows[:, 0], rows[:, 1] = np.arange(150) % 20, np.arange(150) * 7 % 100
    for split, part in {"train": rows[:100], "test": rows[100:]}.items():
        (folder / f"{split}.bin").write_bytes(part.tobytes())
    offline(monkeypatch, str(folder.parent))
    prepare("cifar100", manual=None, output=tmp_path / "data")
    prepared = tmp_path / "data" / "cifar100" / "3.0.2"
    for split, part in {"train": rows[:100], "test": rows[100:]}.items():
        rows_in_order = part[tfds_order(split, range(len(part)))]
        assert stored(prepared, split, "label", "coarse_label") == rows_in_order[:, [1, 0]].tolist()
        image = read(PreparedDataset(prepared), split, 5, ["image"])["image"].item()
        assert (np.asarray(pixels.decode_rgb(image)).transpose(2, 0, 1).ravel() == rows_in_order[5, 2:]).all()


def test_preparing_dsprites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    h5py: Any = pytest.importorskip("h5py", reason="h5py, by which TFDS reads dSprites, is not installed")
    sprites = noise(40, 64, 64, high=2)
    classes = np.random.default_rng(0).integers(0, (1, 3, 6, 40, 32, 32), (40, 6))
    with h5py.File(tmp_path / "dsprites.hdf5", "w") as file:
        file["imgs"], file["latents/classes"], file["latents/values"] = sprites, classes, classes / 64
    offline(monkeypatch, str(tmp_path / "dsprites.hdf5"))
    prepare("dsprites", manual=None, output=tmp_path / "data")
    folder = tmp_path / "data" / "dsprites" / "2.0.0"
    order = tfds_order("train", range(40))
    names = ("label_orientation", "label_x_position", "value_scale")
    assert stored(folder, "train", *names) == [[c[3], c[4], c[2] / 64] for c in classes[order].tolist()]
    image = read(PreparedDataset(folder), "train", 0, ["image"])["image"].item()
    assert (pixels.bilinear_binary(image, 64)[0] == sprites[order[0]] * 255.0).all()


def kitti_archives(folder: Path, boxes: dict[int, str]) -> dict[str, str]:
    """Write KITTI's three archives with one image per video."""
    contents: dict[str, dict[str, bytes]] = {
        "images": {f"training/image_2/{i:06d}.png": encoded(noise(30, 90, 3) + np.uint8(i), "PNG") for i in boxes},
        "annotations": {f"training/label_2/{i:06d}.txt": text.encode() for i, text in boxes.items()},
        "devkit": {
            "mapping/train_rand.txt": ",".join(str(i + 1) for i in boxes).encode(),
            "mapping/train_mapping.txt": "\n".join(f"2011_09_26 drive_{i:04d} 0" for i in boxes).encode(),
        },
    }
    for name, members in contents.items():
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for path, content in members.items():
                archive.writestr(path, content)
    return {name: str(folder / f"{name}.zip") for name in contents}


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, list[float]]:
    """Archives of 30 images of KITTI in place of its download: the distances of the cars in each, some without."""
    cars = {i: [4.5 * k + i for k in range(i % 4)] for i in range(30)}
    line = "Car 0.00 0 -1.57 10 5 40 25 1.65 1.67 3.64 -0.65 1.71 {} -1.59"
    ignored = "DontCare -1 -1 -10 5 5 6 6 -1 -1 -1 -1000 -1000 -1000 -10"
    texts = {i: "".join(f"{row}\n" for row in [*map(line.format, distances), ignored]) for i, distances in cars.items()}
    offline(monkeypatch, kitti_archives(tmp_path, texts))
    return cars


def test_preparing_kitti(tmp_path: Path, scenes: dict[int, list[float]]) -> None:
    pytest.importorskip("cv2", reason="OpenCV, by which TFDS reads KITTI, is not installed")
    prepare("kitti", manual=None, output=tmp_path / "data")
    dataset = PreparedDataset(tmp_path / "data" / "kitti" / "3.3.0")
    assert dataset.sizes == {"train": 24, "validation": 3, "test": 3}
    seen: set[int] = set()
    for split, size in dataset.sizes.items():
        names = ["image/file_name", "objects/type", "objects/location"]
        rows = [read(dataset, split, position, names) for position in range(size)]
        files = [row["image/file_name"].item().decode() for row in rows]
        assert tfds_order(split, files).tolist() == list(range(size))
        for file, row in zip(files, rows, strict=True):
            distances = scenes[int(file[:6])]
            assert row["objects/type"].tolist() == [0] * len(distances)
            assert row["objects/location"].reshape(-1, 3)[:, 2].tolist() == distances
        seen |= {int(file[:6]) for file in files}
    assert seen == set(scenes)


def test_preparing_without_a_package_that_tfds_needs(
    tmp_path: Path, scenes: dict[int, list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(DataError, match=r"kitti needs a package .*cv2 .*; pip install 'lite-bench\[tfds-prepare\]'"):
        prepare("kitti", manual=None, output=tmp_path / "data")
