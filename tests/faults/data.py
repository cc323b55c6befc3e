"""Data files, whole and damaged."""

import gzip
import io
import random

import pyarrow as pa
import pyarrow.parquet as pq


def with_broken_row_group(text: str, generator: random.Random) -> tuple[bytes, bytes]:
    """Returns a parquet file of the lines, in row groups of ten, and the same with noise in a later one."""
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": text.splitlines()}), buffer, row_group_size=10, write_page_checksum=True)
    whole = buffer.getvalue()
    groups = pq.ParquetFile(io.BytesIO(whole)).metadata
    column = groups.row_group(generator.randrange(groups.num_row_groups // 2, groups.num_row_groups)).column(0)
    first = min(filter(None, (column.dictionary_page_offset, column.data_page_offset)))
    end = first + column.total_compressed_size
    return whole, whole[:first] + generator.randbytes(end - first) + whole[end:]


def truncated_gzip(text: str, generator: random.Random) -> tuple[bytes, bytes]:
    """Returns the text in gzip, and the same without its tail."""
    whole = gzip.compress(text.encode())
    return whole, whole[: generator.randrange(len(whole) // 2, len(whole) - 8)]
