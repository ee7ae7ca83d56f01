"""The files of a prepared TFDS split, in each of the formats that give random access to their records."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from array_record.python.array_record_module import (
    ArrayRecordReader,
    ArrayRecordWriter,
)

from lite_bench.datasets.tfrecords.framing import frame
from lite_bench.datasets.tfrecords.reading import RecordReader
from lite_bench.harness.errors import DataError

Format = Literal["array_record", "tfrecord", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)

ROW_GROUP_RECORDS = 100
ROW_GROUPS_HELD = 4
PARQUET_COLUMN = "data"


class Shard(Protocol):
    """One file of records; ``read`` may be called from several threads at once."""

    n_records: int

    def read(self, number: int) -> bytes:
        """Read the record ``number`` in 0..n_records-1."""


class ArrayRecordShard:
    """A file of Google's ArrayRecord format."""

    def __init__(self, path: Path) -> None:
        """Open the file; no record is read."""
        # Reading ahead would read what a strided or random access never uses.
        self._reader: Any = ArrayRecordReader(str(path), options="readahead_buffer_size:0")
        self.n_records = int(self._reader.num_records())

    def read(self, number: int) -> bytes:
        """Read one record."""
        return bytes(self._reader.read([number])[0])


class TfRecordShard:
    """A TFRecord file, read through our index of record starts."""

    def __init__(self, path: Path) -> None:
        """Load or make the index."""
        self._path = path
        self.n_records = _record_reader().count(path)

    def read(self, number: int) -> bytes:
        """Read one record."""
        return _record_reader().read(self._path, number)


@functools.cache
def _record_reader() -> RecordReader:
    """Share one reader, because each bounds the number of its open files for itself."""
    return RecordReader()


class ParquetShard:
    """A Parquet file whose only column holds the records; the row groups read last are kept."""

    def __init__(self, path: Path) -> None:
        """Open the file; no record is read."""
        import pyarrow.parquet as pq

        self._file: Any = pq.ParquetFile(path)
        metadata = self._file.metadata
        self._lengths = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self.n_records = sum(self._lengths)
        self._groups: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, number: int) -> bytes:
        """Read one record."""
        group = 0
        while number >= self._lengths[group]:
            number -= self._lengths[group]
            group += 1
        return bytes(self._column(group)[number].as_buffer())

    def _column(self, group: int) -> Any:
        with self._lock:
            if group not in self._groups:
                self._groups[group] = self._file.read_row_group(group).column(0)
                if len(self._groups) > ROW_GROUPS_HELD:
                    self._groups.popitem(last=False)
            self._groups.move_to_end(group)
            return self._groups[group]


SHARDS: dict[Format, type[ArrayRecordShard] | type[TfRecordShard] | type[ParquetShard]] = {
    "array_record": ArrayRecordShard,
    "tfrecord": TfRecordShard,
    "parquet": ParquetShard,
}


def open_shard(path: Path, file_format: Format, n_records: int) -> Shard:
    """Open one file of records.

    Args:
        path: the file.
        file_format: what it is written in.
        n_records: how many examples ``dataset_info.json`` says it holds.

    Raises:
        DataError: the file is missing, damaged, or holds another number of examples.
    """
    if not path.is_file():
        raise DataError(f"The file {path} is missing; copy the dataset again, or delete its folder and prepare it.")
    try:
        shard = SHARDS[file_format](path)
    except DataError:
        raise
    except Exception as error:
        raise damaged(path, error) from error
    if shard.n_records != n_records:
        cause = " (the Parquet writer of tensorflow-datasets 4.9.10 drops examples)" if file_format == "parquet" else ""
        raise DataError(
            f"The file {path} holds {shard.n_records} of {n_records} examples{cause}; "
            "delete its folder and prepare the dataset again in array_record format."
        )
    return shard


def damaged(path: Path, error: Exception) -> DataError:
    """Word the error of a file whose format is broken."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(
        f"The file {path} is damaged ({reason}); copy the dataset again, or delete its folder and prepare it."
    )


def write_shard(path: Path, file_format: Format, records: Sequence[bytes]) -> None:
    """Write one file of records, as the writers of TFDS lay it out.

    Raises:
        OSError: the file cannot be written.
    """
    if file_format == "tfrecord":
        path.write_bytes(b"".join(map(frame, records)))
    elif file_format == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table({PARQUET_COLUMN: pa.array(records, pa.binary())})
        pq.write_table(table, path, row_group_size=ROW_GROUP_RECORDS)
    else:
        writer: Any = ArrayRecordWriter(str(path), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
