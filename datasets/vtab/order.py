"""The order in which TensorFlow Datasets stores examples, without TensorFlow Datasets.

The order of a split is that of the MD5 hashes of split name and key, as 128-bit big-endian integers
(``tensorflow_datasets/core/hashing.py``); number and format of files do not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def tfds_hash(split: str, key: str | int) -> bytes:
    """Hash an example's key: 16 bytes, by which TFDS sorts the examples of a split."""
    return hashlib.md5(f"{split}{key}".replace("\\", "/").encode(), usedforsecurity=False).digest()


def tfds_order(split: str, keys: Iterable[str | int]) -> np.ndarray:
    """Find the order in which TFDS stores examples.

    Args:
        split: name of the split, as TFDS calls it.
        keys: what the builder yields with each example, all different.

    Returns:
        int64 [n], numbers of the keys in storage order.

    Raises:
        ValueError: two keys are equal.
    """
    digests = b"".join(tfds_hash(split, key) for key in keys)
    halves = np.frombuffer(digests, dtype=">u8").reshape(-1, 2).astype(np.uint64)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    if (np.diff(halves[order], axis=0) == 0).all(axis=1).any():
        raise ValueError(f"two examples of {split!r} have the same key")
    return order.astype(np.int64)


def sprite_latents(index: np.ndarray) -> dict[str, np.ndarray]:
    """Give the latent factors of dSprites' images, by the order of its own file.

    Args:
        index: int [n] in 0..737279.

    Returns:
        int [n] each: ``y`` varies fastest, then ``x``, ``orientation``, ``scale`` and ``shape``.
    """
    return {
        "y": index % 32,
        "x": index // 32 % 32,
        "orientation": index // 1024 % 40,
        "scale": index // 40960 % 6,
        "shape": index // 245760,
    }
