"""Documents of JSON files: an object per line, or a list of objects, read one by one."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from .documents import NoColumnError, NotTextError

LONGEST_OBJECT = 2**26
"""Bytes of an object at most, since each must be held as a whole. A longer document is read from a text file."""

CHUNK = 2**16
"""Bytes of a list that are read at once, at least."""

BETWEEN = re.compile(r"[ \t\r\n,]*")
"""What may stand between two entries of a list."""


class NotJsonError(ValueError):
    """The file is not what it should be; the message says where."""


def documents(file: BinaryIO, column: str) -> Iterator[str | None]:
    """Gives what the objects of a file hold under a name; an object without it has no text.

    Raises:
        NoColumnError: If the first object does not have it.
        NotTextError: If there is something else than text.
        NotJsonError: See [`objects`].
    """
    for number, (place, value) in enumerate(objects(file)):
        if not number and column not in value:
            raise NoColumnError(column, value)
        text = value.get(column)
        if not isinstance(text, str | None):
            raise NotTextError(f"{type(text).__name__} in {place}")
        if text and not text.isascii():
            _check_unicode(text, place)
        yield text


def _check_unicode(text: str, place: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = text[error.start].encode("unicode_escape").decode()
        raise NotJsonError(
            f"{place} holds {half}, half of a character of UTF-16: repair it where it was cut"
        ) from error


def objects(file: BinaryIO) -> Iterator[tuple[str, dict[str, Any]]]:
    """Gives the objects of a file, each with the place where it stands, such as `line 3`.

    Raises:
        NotJsonError: If something else stands there, or an object is longer than [`LONGEST_OBJECT`].
    """
    first = _begin(file)
    return _of_list(file) if first == b"[" else _of_lines(file, first)


def _begin(file: BinaryIO) -> bytes:
    """Reads up to the first byte that is no white space, and returns it."""
    byte = file.read(1)
    while byte and byte in b" \t\r\n\xef\xbb\xbf":  # A byte order mark says nothing.
        byte = file.read(1)
    return byte


def _of_lines(file: BinaryIO, first: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    number, line = 1, first + file.readline(LONGEST_OBJECT + 1)
    while line:
        place = f"line {number}"
        if len(line) > LONGEST_OBJECT:
            raise NotJsonError(_too_long(place))
        if not line.isspace():
            yield place, _checked(place, _parsed(place, line))
        number, line = number + 1, file.readline(LONGEST_OBJECT + 1)


def _parsed(place: str, line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise NotJsonError(f"{place} is not UTF-8: {error.reason} at byte {error.start}") from error
    except RecursionError as error:
        raise NotJsonError(f"{place} is nested too deep") from error
    except ValueError as error:
        raise NotJsonError(f"{place} is not JSON: {error}") from error


def _of_list(file: BinaryIO) -> Iterator[tuple[str, dict[str, Any]]]:
    """Gives the objects of a list whose bracket was read; no more is held than a chunk, or the longest object."""
    decoder, utf8 = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8")()
    text, begin, number, at_end = "", 0, 1, False
    while True:
        begin, place = BETWEEN.match(text, begin).end(), f"entry {number}"
        if text.startswith("]", begin):
            rest = text[begin + 1 :]
            while not rest.strip():
                data = file.read(CHUNK)
                if not data:
                    return
                rest = _decoded(utf8, data, "what follows the list")
            raise NotJsonError(f"there is more after the end of the list: {rest.strip()[:20]!r}")
        if begin < len(text) and text[begin] != "{":
            raise NotJsonError(f"{place} is not an object: {text[begin : begin + 20]!r}")
        try:
            value, begin = decoder.raw_decode(text, begin)
        except RecursionError as error:
            raise NotJsonError(f"{place} is nested too deep") from error
        except json.JSONDecodeError as error:
            # It may go on: twice as much is read, so that a long one is not parsed again and again.
            text, begin = text[begin:], 0
            if at_end:
                raise NotJsonError(f"{place} is not JSON: {error}") from error
            if len(text) > LONGEST_OBJECT:
                raise NotJsonError(_too_long(place)) from error
            data = file.read(max(CHUNK, len(text)))
            at_end = not data
            text += _decoded(utf8, data, place)
        else:
            yield place, value
            number += 1


def _decoded(decoder: codecs.IncrementalDecoder, data: bytes, place: str) -> str:
    try:
        return decoder.decode(data, final=not data)
    except UnicodeDecodeError as error:
        raise NotJsonError(f"{place} or one soon after it is not UTF-8: {error.reason}") from error


def _checked(place: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NotJsonError(f'{place} is {type(value).__name__}, not an object such as {{"text": ...}}')
    return value


def _too_long(place: str) -> str:
    return (
        f"{place} has more than {LONGEST_OBJECT >> 20} MiB, which would be held as a whole: cut the document, or give "
        "it as txt, which is read piece by piece"
    )
