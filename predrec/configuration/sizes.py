"""Sizes of models that are no sizes: refused before a loop or a list is as long as they say."""

from collections.abc import Mapping
from typing import Any

from ..errors import UserError

LARGEST = {
    "hidden_size": 2**17,
    "num_hidden_layers": 1024,
    "num_attention_heads": 2**14,
    "intermediate_size": 2**20,
    "max_position_embeddings": 2**24,
    "vocab_size": 2**24,
}
"""Sizes beyond any encoder that was ever trained. Building a million layers would not end before the memory does."""


def check_sizes(values: Mapping[str, Any], source: str = "", prefix: str = "") -> None:
    """Refuses sizes out of range; what is absent passes, and so do sizes that are no numbers, which others check.

    Args:
        values (`Mapping[str, Any]`): Fields of a configuration by name; unknown ones pass.
        source (`str`): Where they come from, such as `` `init_from` 'some/model' ``.
        prefix (`str`): Begins their names.

    Raises:
        UserError: Naming the field and its value.
    """
    for name, largest in LARGEST.items():
        value, least = values.get(prefix + name), int(name != "num_hidden_layers")
        if isinstance(value, int | float) and not least <= value <= largest:
            where = f"{source}: " if source else ""
            small = "at least 1" if least else "not negative"
            rule = f"at most {largest:,}" if value > largest else small
            raise UserError(f"{where}`{prefix}{name}` is {value}; it must be {rule}.")
