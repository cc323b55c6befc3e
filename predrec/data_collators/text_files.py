"""Documents of text files: lines, paragraphs or whole files, read piece by piece however long they are."""

import io
from collections.abc import Callable, Iterator
from typing import BinaryIO, TextIO

from .documents import LONGEST, cut, end_of_piece

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def documents(file: BinaryIO, sample_by: str) -> Iterator[str]:
    """Gives the documents of a file in UTF-8, with any ends of lines and with or without a byte order mark.

    Args:
        file (`BinaryIO`): The file, at its beginning; it must be seekable.
        sample_by (`"line"`, `"paragraph"` or `"document"`): What a document is.

    Raises:
        ValueError: If it is not UTF-8; the message says where.
    """
    if file.read(len(BYTE_ORDER_MARK)) != BYTE_ORDER_MARK:
        file.seek(0)
    try:
        yield from SAMPLE_BY[sample_by](io.TextIOWrapper(file, encoding="utf-8"))
    except UnicodeDecodeError as error:
        place = file.tell() - len(error.object) + error.start
        raise ValueError(
            f"it is not UTF-8: byte {error.object[error.start]:#04x} at position {place:,}. Convert it, as with "
            "`iconv -f LATIN1 -t UTF-8`, or take out what is no text"
        ) from error


def lines(file: TextIO) -> Iterator[str]:
    """Gives the lines of a file, without their ends; of a line that is too long, documents as [`cut`] makes them."""
    return _between("\n", file)


def paragraphs(file: TextIO) -> Iterator[str]:
    """Gives what stands between blank lines."""
    return (text.strip("\n") for text in _between("\n\n", file))


def whole(file: TextIO) -> Iterator[str]:
    """Gives the whole file as one document, or as several if it is too long."""
    return _between(None, file)


def _between(border: str | None, file: TextIO) -> Iterator[str]:
    rest = ""
    while more := file.read(LONGEST):
        *complete, rest = [rest + more] if border is None else (rest + more).split(border)
        for text in complete:
            yield from cut(text)
        while len(rest) > LONGEST:
            # The end of the file may be near: what is held back is a document, or a border that is cut in two.
            end = end_of_piece(rest)
            yield rest[:end]
            rest = rest[end:]
    if rest:
        yield rest


SAMPLE_BY: dict[str, Callable[[TextIO], Iterator[str]]] = {"line": lines, "paragraph": paragraphs, "document": whole}
"""What counts as a document in a text file."""
