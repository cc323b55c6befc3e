"""Names of the package: the same for people, imports and type checkers."""

import ast
from pathlib import Path

import pytest

import predrec


def test_type_checkers_see_every_public_name():
    """Names are loaded when they are first used; what is imported for type checkers alone must be the same."""
    tree = ast.parse(Path(predrec.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name for node in block.body for alias in node.names}
    assert seen == set(predrec.__all__)
    assert all(getattr(predrec, name).__name__ == name for name in seen)
    assert set(predrec.__all__) <= set(dir(predrec))


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'PredRecTrainr'"):
        predrec.PredRecTrainr  # noqa: B018
