"""Documents of parquet files: the text column alone, in batches of bounded size."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .documents import NoColumnError, NotTextError

LONGEST_VALUE = 2**26
"""Bytes of a document at most, since each must be held as a whole. A longer one is read from a text file."""

BATCH = 2**22
"""Bytes of text that are read at once, about."""

TOO_LONG = (
    f"a document has more than {LONGEST_VALUE >> 20} MiB, which would be held as a whole: cut it, or give it as txt, "
    "which is read piece by piece"
)


def documents(path: str, column: str) -> Iterator[str | None]:
    """Gives the texts of a column.

    Raises:
        NoColumnError: If there is no such column.
        NotTextError: If it holds something else than text.
        ValueError: If a text is longer than [`LONGEST_VALUE`], or the file cannot be read.
    """
    # Buffered, so that a row group, which may be the whole file, is not read at once.
    with pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
        _check_column(file.schema_arrow, column)
        mean = _mean_length(file.metadata, column)
        if mean > LONGEST_VALUE:
            raise ValueError(TOO_LONG)
        rows = int(min(1000, max(1, BATCH // mean)))
        for batch in file.iter_batches(batch_size=rows, columns=[column], use_threads=False):
            texts = batch.column(column)
            if pa.types.is_dictionary(texts.type):
                texts = texts.dictionary_decode()
            if (pc.max(pc.binary_length(texts)).as_py() or 0) > LONGEST_VALUE:
                raise ValueError(TOO_LONG)
            yield from texts.to_pylist()


def _check_column(schema: pa.Schema, column: str) -> None:
    if column not in schema.names:
        raise NoColumnError(column, schema.names)
    kind = schema.field(column).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise NotTextError(str(kind))


def _mean_length(metadata: pq.FileMetaData, column: str) -> float:
    """Returns the bytes of a text, on average, in the row group where that is most; known before anything is read."""
    longest = 1.0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.path_in_schema == column:
                longest = max(longest, chunk.total_uncompressed_size / max(1, group.num_rows))
    return longest
