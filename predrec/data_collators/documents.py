"""What a document is at most: longer ones are cut, so that none costs more memory than any other."""

import re
from collections.abc import Iterable, Iterator

LONGEST = 2**18
"""Characters of a document at most. A longer one counts as several, cut at white space where there is any."""


class NoColumnError(ValueError):
    """There is no such column.

    Args:
        column (`str`): The one that is wanted.
        there (`Iterable[str]`): Those that are there.
    """

    def __init__(self, column: str, there: Iterable[str]):
        super().__init__(f"has no column {column!r}, but {', '.join(map(repr, there)) or 'none at all'}")


class NotTextError(ValueError):
    """The column holds something else than text; the message says what, and where."""


def end_of_piece(text: str, begin: int = 0, longest: int = LONGEST) -> int:
    """Returns where the piece that begins there ends: with the text, or where it would become too long.

    A cut is behind the last white space of its `longest` characters, if there is any in their second half.
    """
    if len(text) - begin <= longest:
        return len(text)
    half = begin + longest // 2
    found = re.search(r"\s\S*\Z", text[half : begin + longest])
    return begin + longest if found is None else half + found.start() + 1


def cut(text: str, longest: int = LONGEST) -> Iterator[str]:
    """Gives a text in pieces of at most `longest` characters: as it is, if it is not too long."""
    begin, end = 0, end_of_piece(text, 0, longest)
    yield text[:end]
    while end < len(text):
        begin, end = end, end_of_piece(text, end, longest)
        yield text[begin:end]
