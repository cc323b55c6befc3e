"""The one exception for what a user can mend."""

from collections.abc import Sequence

LONGEST = 2000
"""Characters of a message on one line; what is longer holds a value, and the middle of it is left out."""


class UserError(ValueError):
    """Something the user gave cannot work. The message names the field, the value, and what to do instead.

    Args:
        message (`str`): Shown on one line.
        details (`Sequence[str]`, *optional*): Lines below it: a list, the end of a log, a command to type.
    """

    def __init__(self, message: str, details: Sequence[str] = ()):
        super().__init__("\n  ".join([message, *details]))
        self.message, self.details = message, tuple(details)


def reason_of(error: BaseException) -> str:
    """Returns what a loader's error says, or, if it is about code that a checkpoint brings along, what holds here."""
    if "trust_remote_code" in str(error):
        return "it needs code that it brings along, and no such code is run here"
    return str(error).rstrip(".") or type(error).__name__


def one_line(message: str) -> str:
    """Returns a message on one line, of bounded length, with characters escaped that a terminal would act upon."""
    text = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in " ".join(message.split())
    )
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
