"""``tf.train.Example`` without TensorFlow: its protocol-buffer wire format, read and written.

An Example is a map from names to features; a feature is a list of bytes, of float32 or of int64. As messages:
Example {1: Features}, Features {1: map entry, repeated}, map entry {1: name, 2: Feature}, Feature {one of
1: list of bytes, 2: list of floats, 3: list of ints}, and each list {1: element, repeated}.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

Value = list[bytes] | np.ndarray
"""A feature: a list of bytes, or a float32 or int64 array [n]; an empty list if its kind is not even said."""

Encodable = bytes | Sequence[bytes] | int | Sequence[int] | float | Sequence[float] | np.ndarray

VARINT, FIXED64, CHUNK, GROUP_START, GROUP_END, FIXED32 = range(6)
BYTES_LIST, FLOAT_LIST, INT64_LIST = 1, 2, 3
TAG_LIMIT, INT64_LIMIT = 1 << 32, 1 << 63
MAX_GROUP_DEPTH = 100
FLOAT32 = np.dtype("<f4")


def parse_example(payload: bytes) -> dict[str, Value]:
    """Read a serialised ``tf.train.Example``.

    Packed and unpacked numbers, any order of fields and features split over several messages are read as
    protocol buffers define; unknown fields are skipped; of features of the same name the last counts.

    Args:
        payload: the content of one record.

    Returns:
        the features by name.

    Raises:
        ValueError: the bytes are not an Example.
    """
    features: dict[str, Value] = {}
    for field, message in _chunks(payload):
        for member, entry in _chunks(message) if field == 1 else ():
            if member == 1:
                name, value = _parse_entry(entry)
                features[name] = value
    return features


def _parse_entry(entry: bytes) -> tuple[str, Value]:
    name, kind = "", 0
    lists: list[bytes] = []
    for field, content in _chunks(entry):
        if field == 1:
            name = content.decode("utf-8")
        for member, items in _chunks(content) if field == 2 else ():
            if BYTES_LIST <= member <= INT64_LIST:
                # Of several lists of one kind the elements join; a list of another kind replaces them.
                lists = [*lists, items] if member == kind else [items]
                kind = member
    return name, _parse_list(kind, b"".join(lists))


def _parse_list(kind: int, content: bytes) -> Value:
    if kind == FLOAT_LIST:
        return _parse_floats(content)
    if kind == INT64_LIST:
        return _parse_ints(content)
    return [item for field, item in _chunks(content) if field == 1]


def _parse_floats(content: bytes) -> np.ndarray:
    parts: list[bytes] = []
    for field, wire, value in _fields(content):
        if field == 1 and wire in (CHUNK, FIXED32) and isinstance(value, bytes):
            if len(value) % FLOAT32.itemsize:
                raise ValueError(f"has {len(value)} bytes where whole float32 values belong")
            parts.append(value)
    return np.frombuffer(b"".join(parts), FLOAT32).astype(np.float32)


def _parse_ints(content: bytes) -> np.ndarray:
    numbers: list[int] = []
    for field, wire, value in _fields(content):
        if field != 1:
            continue
        if isinstance(value, int):
            numbers.append(value)
        elif wire == CHUNK:
            position = 0
            while position < len(value):
                number, position = _varint(value, position)
                numbers.append(number)
    return np.array([n - (n >= INT64_LIMIT) * 2 * INT64_LIMIT for n in numbers], np.int64)


def _chunks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Give number and content of every field that is a string, a message or packed numbers."""
    for field, wire, value in _fields(data):
        if wire == CHUNK and isinstance(value, bytes):
            yield field, value


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Read an unsigned 64-bit number and the position after it."""
    result = shift = 0
    while shift < 70:
        if position >= len(data):
            raise ValueError("ends in the middle of a number")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & (2 * INT64_LIMIT - 1), position
        shift += 7
    raise ValueError("has a number of more than 10 bytes")


def _fields(data: bytes) -> Iterator[tuple[int, int, bytes | int]]:
    """Give number, wire type and value of every field: a number for varints, else bytes; groups are skipped."""
    position, groups = 0, []
    while position < len(data):
        tag, start = _varint(data, position)
        field, wire = tag >> 3, tag & 7
        if not field or tag >= TAG_LIMIT or start - position > 5:
            raise ValueError("has a field number outside the protocol's range")
        position = start
        value: bytes | int = 0
        if wire == VARINT:
            value, position = _varint(data, position)
        elif wire == GROUP_START:
            groups.append(field)
            if len(groups) > MAX_GROUP_DEPTH:
                raise ValueError("nests too deep")
            continue
        elif wire == GROUP_END:
            if not groups or groups.pop() != field:
                raise ValueError("ends a group that it did not start")
            continue
        else:
            value, position = _chunk(data, position, wire)
        if not groups:
            yield field, wire, value
    if groups:
        raise ValueError("does not end a group")


def _chunk(data: bytes, position: int, wire: int) -> tuple[bytes, int]:
    """Read a value of a stated or fixed number of bytes and the position after it."""
    if wire == CHUNK:
        size, position = _varint(data, position)
    elif wire in (FIXED64, FIXED32):
        size = 8 if wire == FIXED64 else 4
    else:
        raise ValueError(f"has a field of the unknown wire type {wire}")
    if position + size > len(data):
        raise ValueError("ends in the middle of a field")
    return data[position : position + size], position + size


def encode_example(features: Mapping[str, Encodable]) -> bytes:
    """Serialise features as a ``tf.train.Example``, in the order given, numbers packed.

    Args:
        features: values by name: bytes, ints (stored as int64) or floats (stored as float32), each single, in a
            sequence or in an array [n]. An empty sequence is stored without a kind; an empty array keeps its.

    Raises:
        ValueError: a value is of no such type, has several dimensions or does not fit int64.
    """
    entries = (_field(1, name.encode()) + _field(2, _encode_feature(name, value)) for name, value in features.items())
    return _field(1, b"".join(_field(1, entry) for entry in entries))


def _encode_feature(name: str, value: Encodable) -> bytes:
    if isinstance(value, bytes):
        value = [value]
    if isinstance(value, Sequence) and not isinstance(value, str):
        if not value:
            return b""
        if all(isinstance(item, bytes) for item in value):
            return _field(BYTES_LIST, b"".join(_field(1, item) for item in value if isinstance(item, bytes)))
    array = np.atleast_1d(np.asarray(value))
    if array.ndim != 1:
        raise ValueError(f"feature {name!r} has {array.ndim} dimensions; an Example stores lists")
    whole = array.dtype.kind in "iu" or (isinstance(value, Sequence) and all(isinstance(item, int) for item in value))
    if array.dtype.kind == "f" and not whole:
        with np.errstate(over="ignore"):
            packed = array.astype(FLOAT32).tobytes()
        return _field(FLOAT_LIST, _field(1, packed) if packed else b"")
    if array.dtype.kind in "iu" and (not array.size or int(array.max()) < INT64_LIMIT):
        packed = b"".join(_encode_varint(number % (2 * INT64_LIMIT)) for number in array.tolist())
        return _field(INT64_LIST, _field(1, packed) if packed else b"")
    raise ValueError(f"feature {name!r} is neither bytes nor floats nor integers of 64 bits, but {array.dtype}")


def _field(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | CHUNK,)) + _encode_varint(len(content)) + content


def _encode_varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
