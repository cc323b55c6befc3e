"""Whatever a recipe holds: it is read, or refused with an error that names the file."""

import os
from pathlib import Path
from unittest import mock

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from predrec.commands.pretrain import ARGUMENTS
from predrec.configuration import parse_recipe
from predrec.configuration.recipes import RecipeParser
from predrec.errors import UserError

NAMES = RecipeParser(ARGUMENTS).field_names
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates()
SPECIAL = st.sampled_from(["", "-1", "0", "1e400", "nan", "{", "[[", "null", "--bf16", "true", "\x00", "=", "9" * 400])
TREES = st.recursive(
    SCALARS | SPECIAL,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | SCALARS, inner, max_size=3),
    max_leaves=8,
)
FIXED = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path, monkeypatch):
    """An empty folder, and an environment of its own: some arguments leave variables behind."""
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(os.environ):
        yield


def check(content: bytes) -> None:
    """The property: arguments of the three kinds, or a `UserError` that names the file; nothing else."""
    Path("fuzzed.yaml").write_bytes(content)
    try:
        arguments, resolved = parse_recipe(["fuzzed.yaml", "--output_dir", "out"], ARGUMENTS)
    except UserError as error:
        assert "'fuzzed.yaml'" in str(error)
        assert "\n" not in str(error)
    else:
        assert tuple(map(type, arguments)) == ARGUMENTS
        assert set(resolved) <= set(NAMES)
    assert [path.name for path in Path().iterdir()] == ["fuzzed.yaml"]


def written(tree: object) -> bytes:
    return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")


@FIXED
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_recipe_or_a_named_error(content):
    check(content)


@FIXED
@given(st.text(alphabet="abc:-[]{}&*!?|>%@`#'\",\\ \n\t<0", max_size=60))
def test_any_punctuation_is_a_recipe_or_a_named_error(text):
    check(text.encode())


@FIXED
@given(TREES)
def test_any_tree_is_a_recipe_or_a_named_error(tree):
    check(written(tree))


@settings(FIXED, max_examples=300)
@given(st.dictionaries(st.sampled_from(NAMES), SPECIAL | SCALARS, min_size=1, max_size=2))
def test_any_word_for_any_argument_is_a_recipe_or_a_named_error(recipe):
    check(written(recipe))


@FIXED
@given(st.dictionaries(st.sampled_from(NAMES), TREES, min_size=1, max_size=3))
def test_any_value_of_any_argument_is_a_recipe_or_a_named_error(recipe):
    check(written(recipe))
