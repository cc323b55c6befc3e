"""The numbers of the paper, for the tables that show them beside ours."""

import json
from functools import cache
from pathlib import Path
from typing import Any

PUBLISHED = ("hybrid", "mlm")
"""Order of every published pair."""


@cache
def published() -> dict[str, Any]:
    """Returns the paper's numbers."""
    return json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
