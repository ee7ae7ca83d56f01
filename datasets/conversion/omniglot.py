"""Omniglot to records: characters of 50 alphabets, white on black.

Splits and order are Meta-Dataset's: the background alphabets are for training but for five, which validate;
the evaluation alphabets test. B. M. Lake, R. Salakhutdinov, J. B. Tenenbaum, "Human-level concept learning
through probabilistic program induction", Science, 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from PIL import ImageOps

from lite_bench.datasets.conversion.jpeg import decode, encoded, jpeg_bytes
from lite_bench.datasets.conversion.originals import Members, find_original, open_members, require_published
from lite_bench.datasets.conversion.plan import ClassPlan, Conversion, Original
from lite_bench.datasets.meta_dataset.catalogue import published
from lite_bench.datasets.meta_dataset.specification import BiLevelSpecification
from lite_bench.harness.core import Split
from lite_bench.harness.errors import DataError

PAGE = "https://github.com/brendenlake/omniglot/tree/master/python"
PARTS = ("background", "evaluation")
PART_OF_SPLIT: dict[Split, str] = {"train": "background", "validation": "background", "test": "evaluation"}
DRAWING = r"(?:^|/)images_{part}/([^/]+)/(character\d+)/\d+_\d+\.png$"

Characters = dict[str, tuple[Members, tuple[str, ...]]]


@dataclass(frozen=True)
class Omniglot:
    """Knows Omniglot's two archives, or the folders they unpack to.

    Attributes:
        check_published: insist on the published alphabets and counts.
    """

    check_published: bool = True
    source: ClassVar[str] = "omniglot"
    originals: ClassVar[tuple[Original, ...]] = tuple(
        Original((f"images_{part}", f"images_{part}.zip"), PAGE) for part in PARTS
    )

    def plan(self, folder: Path) -> Conversion:
        """See `Converter.plan`."""
        alphabets: dict[str, Characters] = {}
        known = _published_alphabets()
        for part, original in zip(PARTS, self.originals, strict=True):
            drawn = _drawings(folder, part, original)
            expected = {name for split, names in known.items() if PART_OF_SPLIT[split] == part for name in names}
            if foreign := sorted(set(drawn) - expected):
                raise DataError(
                    f"The {part} set of omniglot in {folder} has the alphabet {foreign[0]}, which is not part of it; "
                    f"download images_{part}.zip again from {PAGE}."
                )
            alphabets |= drawn
        ordered = [(name, alphabets[name]) for names in known.values() for name in names if name in alphabets]
        sizes = {split: sum(name in alphabets for name in names) for split, names in known.items()}
        return self._conversion(ordered, sizes, folder)

    def _conversion(self, ordered: list[tuple[str, Characters]], sizes: dict[Split, int], folder: Path) -> Conversion:
        classes = [(f"{a}-{c}", drawn) for a, characters in ordered for c, drawn in sorted(characters.items())]
        specification = BiLevelSpecification(
            name=self.source,
            class_names=tuple(name for name, _ in classes),
            images=tuple(len(files) for _, (_, files) in classes),
            superclass_names=tuple(name for name, _ in ordered),
            classes_per_superclass=tuple(len(characters) for _, characters in ordered),
            superclasses_per_split=sizes,
        )
        if self.check_published:
            require_published(specification, folder)
        plans = [
            ClassPlan(class_id, len(files), partial(encoded, members.only(files), files, inverted))
            for class_id, (_, (members, files)) in enumerate(classes)
        ]
        return Conversion(specification, plans)


def _published_alphabets() -> dict[Split, tuple[str, ...]]:
    known = published("omniglot")
    if not isinstance(known, BiLevelSpecification):
        raise TypeError("the catalogue has omniglot's classes without alphabets")
    return {split: tuple(known.superclass_names[i] for i in ids) for split, ids in known.superclasses.items()}


def _drawings(folder: Path, part: str, original: Original) -> dict[str, Characters]:
    """List the drawings of one set by alphabet and character, files in order of name."""
    members = open_members(find_original(folder, original, "omniglot"))
    matches = members.matching(DRAWING.format(part=part))
    if not matches:
        raise DataError(
            f"{members.path} holds no drawings named like images_{part}/Alphabet/character01/0001_01.png; "
            f"download images_{part}.zip again from {PAGE}."
        )
    files: dict[tuple[str, str], list[str]] = {}
    for name, match in matches:
        files.setdefault((match[1], match[2]), []).append(name)
    drawings: dict[str, Characters] = {}
    for (alphabet, character), names in files.items():
        drawings.setdefault(alphabet, {})[character] = (members, tuple(names))
    return drawings


def inverted(data: bytes, name: str) -> bytes:
    """Turn a drawing, black on white, into a JPEG of white on black.

    Raises:
        DataError: it does not decode.
    """
    return jpeg_bytes(ImageOps.invert(decode(data, name)))
