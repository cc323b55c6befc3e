"""Arguments that are a switch or a text."""

from typing import Any


def switch_or_text(value: Any) -> Any:
    """Returns `True` or `False` for those words; anything else, such as the path of a checkpoint, as it is.

    The command line parses arguments as text where they may be either.
    """
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value
