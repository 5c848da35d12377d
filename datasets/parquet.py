"""Parquet files of a dataset: written in row groups of bounded size with page checksums, and read whole."""

from collections.abc import Iterable
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from reelmill.datasets import storage
from reelmill.datasets.errors import DatasetError, one_line

GROUP_ROWS = 4096


def parquet_writer(file: BinaryIO, schema: pa.Schema, **options: Any) -> pq.ParquetWriter:
    """Return a writer with the settings of all our files; ``options`` are further ones of ``ParquetWriter``."""
    return pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True, **options)


class RowWriter:
    """Writer of a Parquet file from dictionaries: a context manager. The same rows give the same bytes.

    Args:
        path: path or URL of the file.
        schema: columns of the file, and keys of the dictionaries.
    """

    def __init__(self, path: str, schema: pa.Schema) -> None:
        self._schema = schema
        self._file = storage.open_write(path)
        self._writer = parquet_writer(self._file, schema)
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()
        self._file.close()

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows. They are buffered until they fill a row group."""
        self._rows.extend(rows)
        while len(self._rows) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        group, self._rows = self._rows[:GROUP_ROWS], self._rows[GROUP_ROWS:]
        if group:
            self._writer.write_table(pa.Table.from_pylist(group, schema=self._schema))


def read_table(path: str, schema: pa.Schema) -> pa.Table:
    """Read a whole file. Raise DatasetError if it is missing, damaged, or does not have this schema."""
    try:
        with storage.open_read(path) as file:
            table = pq.read_table(file, page_checksum_verification=True).cast(schema)
        table.validate(full=True)
        return table
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DatasetError(f"{path} is not readable: {one_line(error)}") from None
