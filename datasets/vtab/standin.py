"""Stand-ins of VTAB's datasets: made-up pictures in exactly the files that the real readers read.

``features.json`` and ``dataset_info.json`` are written by TensorFlow Datasets (TFDS) itself, from the features of
the real builders, and so are the serialised examples; no TensorFlow is needed. Every folder holds a file
``synthetic.json``, so that results on it are never taken for real ones.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import tomllib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from lite_bench.datasets.vtab.order import tfds_hash, tfds_order
from lite_bench.datasets.vtab.prepared import INFO, MARKER
from lite_bench.datasets.vtab.shards import Format, write_shard
from lite_bench.datasets.vtab.standin_examples import N_SPRITES, Example, Maker
from lite_bench.datasets.vtab.standin_images import encode, pattern, spread
from lite_bench.datasets.vtab.sun397 import class_folders
from lite_bench.harness.errors import UnknownNameError, UsageError
from lite_bench.harness.files import write_atomically, write_errors

SHARD_EXAMPLES = 1000
FOLDER_IMAGES = 8
EARLY = round(0.4 * 2**32)
"""Of each class whose keys are random one example is among the first 40 per cent, so that a support set has it."""


@dataclass(frozen=True)
class StandinDataset:
    """A row of ``standin.toml``, where the fields are described."""

    name: str
    encoding: str
    key: str
    splits: Mapping[str, int]
    config: str | None = None
    split_names: Mapping[str, str] | None = None

    @property
    def title(self) -> str:
        """Name and config, as TFDS joins them."""
        return f"{self.name}/{self.config}" if self.config else self.name


def standin_datasets() -> tuple[StandinDataset, ...]:
    """List the stand-ins that can be written, in the order of the tasks."""
    rows = tomllib.loads(files(__package__).joinpath("standin.toml").read_text(encoding="utf-8"))["datasets"]
    return tuple(StandinDataset(**row) for row in rows)


def write_standin(
    root: Path,
    *,
    seed: int = 0,
    side: int = 16,
    file_format: Format = "array_record",
    datasets: Sequence[str] | None = None,
) -> None:
    """Write stand-ins of all datasets of both profiles, and of SUN397's image folder.

    Args:
        root: folder to write into, as a ``--data-dir``; stand-ins already there are replaced.
        seed: another one gives other pictures and labels.
        side: of a picture in pixels where the real dataset has no fixed size.
        file_format: of the prepared datasets.
        datasets: names in TFDS of those to write, and ``sun397-folder``; all if None.

    Raises:
        UnknownNameError: there is no such dataset.
        UsageError: a folder to be written holds data that is no stand-in.
        RunError: a file cannot be written.
    """
    known = [*dict.fromkeys(dataset.name for dataset in standin_datasets()), "sun397-folder"]
    wanted = known if datasets is None else datasets
    for name in wanted:
        if name not in known:
            raise UnknownNameError("VTAB stand-in called", name, known)
    for number, dataset in enumerate(standin_datasets()):
        if dataset.name in wanted:
            _write_dataset(dataset, root, np.random.default_rng((seed, number)), side, seed, file_format)
    if "sun397-folder" in wanted:
        _write_sun397_folder(root / "sun397", np.random.default_rng((seed, len(known))), side, seed)


def _mark(folder: Path, seed: int) -> None:
    """Mark a folder as a stand-in before there is anything in it, so that none is ever without."""
    note = {"synthetic": True, "seed": seed, "note": "made-up pictures; results on them mean nothing"}
    write_atomically(folder / MARKER, json.dumps(note, indent=2) + "\n")


def _refuse_real(folder: Path) -> None:
    if folder.exists() and not (folder / MARKER).is_file():
        raise UsageError(f"The folder {folder} holds data that is no stand-in; write stand-ins to another folder.")


def _write_dataset(
    dataset: StandinDataset, root: Path, rng: np.random.Generator, side: int, seed: int, file_format: Format
) -> None:
    import tensorflow_datasets as tfds

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as elsewhere:
        warnings.simplefilter("ignore")  # of TFDS, about things a user of stand-ins cannot change
        # Made elsewhere, because a builder takes over what its own folder already says.
        builder: Any = tfds.builder(dataset.title, data_dir=elsewhere, file_format=file_format)
        folder = root / Path(builder.data_path).relative_to(elsewhere)
        # Not beside real data of another version either, which would be found no more.
        for taken in {folder, *(info.parent for info in folder.parent.glob(f"*/{INFO}"))}:
            _refuse_real(taken)
        with write_errors(folder):
            shutil.rmtree(folder, ignore_errors=True)
            _mark(folder, seed)
            encode_features = builder.info.features.encode_example
            serializer = tfds.core.example_serializer.ExampleSerializer(builder.info.features.get_serialized_info())
            maker = Maker(dataset.name, dataset.encoding, builder.info.features, side)
            infos: list[Any] = []
            for split, keys, examples in _splits(dataset, maker, rng):
                messages = (
                    serializer.get_tf_example(encode_features(examples[number])) for number in tfds_order(split, keys)
                )
                records = [message.SerializeToString(deterministic=True) for message in messages]
                infos.append(_write_split(dataset.name, split, records, folder, file_format))
            builder.info.set_splits(tfds.core.splits.SplitDict(infos))
            builder.info.write_to_directory(folder)


def _splits(
    dataset: StandinDataset, maker: Maker, rng: np.random.Generator
) -> Iterator[tuple[str, list[str], list[Example]]]:
    """Make the splits one by one, with the key of each example."""
    n = sum(dataset.splits.values())
    numbers = rng.choice(N_SPRITES, n, replace=False) if dataset.name == "dsprites" else np.arange(n)
    for split, size in dataset.splits.items():
        own, numbers = numbers[:size].tolist(), numbers[size:]
        keys: list[str] = []
        examples: list[Example] = []
        ranks = rng.permutation(size).tolist()
        for number, rank in zip(own, ranks, strict=True):
            label = rank % maker.classes
            keys.append(_key(dataset, split, number, maker.label_name(label), rng, early=rank < maker.classes))
            examples.append(maker.example(keys[-1], number, label, rng))
        yield split, keys, examples


def _key(dataset: StandinDataset, split: str, number: int, label: str, rng: np.random.Generator, *, early: bool) -> str:
    while True:
        letters = "".join(map(chr, rng.integers(ord("a"), ord("z") + 1, 16)))
        name = (dataset.split_names or {}).get(split, split)
        key = dataset.key.format(i=number, label=label, split=name, id=letters)
        if not early or "{id}" not in dataset.key or int.from_bytes(tfds_hash(split, key)[:4]) < EARLY:
            return key


def _write_split(name: str, split: str, records: list[bytes], folder: Path, file_format: Format) -> Any:
    """Write the files of a split, records being in storage order, and describe it to TFDS."""
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        dataset_name=name, data_dir=folder, split=split, filetype_suffix=file_format
    )
    n_shards = -(-len(records) // SHARD_EXAMPLES)
    ends = [len(records) * shard // n_shards for shard in range(n_shards + 1)]
    for shard in range(n_shards):
        path = Path(template.sharded_filepath(shard_index=shard, num_shards=n_shards))
        write_shard(path, file_format, records[ends[shard] : ends[shard + 1]])
    return tfds.core.SplitInfo(
        name=split,
        shard_lengths=np.diff(ends).tolist(),
        num_bytes=sum(map(len, records)),
        filename_template=template,
    )


def _write_sun397_folder(folder: Path, rng: np.random.Generator, side: int, seed: int) -> None:
    """Write 397 class folders with eight pictures each, named as the archive names them."""
    from lite_bench.datasets.vtab.preparation import sun397_classes

    if class_folders(folder):
        _refuse_real(folder)
    _mark(folder, seed)
    classes = sun397_classes()
    for label, name in enumerate(classes):
        with write_errors(folder / name):
            (folder / name).mkdir(exist_ok=True)
            for number in range(FOLDER_IMAGES):
                picture = pattern(side, *spread(label, len(classes)), rng)
                path = folder / name / f"sun_{label:04d}{number:04d}.jpg"
                path.write_bytes(encode(picture, (side, side), "JPEG"))
