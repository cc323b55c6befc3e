"""Tokenizers that are broken, endless, or bring code along."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import training

from .cases import GIVEN_TOKENIZER, RAN, Case, Made, ProcessCase

Edit = Callable[[Path], object]


def edited(edit: Edit) -> Callable[[Path, Made], list[str]]:
    """A tiny run with a tokenizer whose folder was edited."""

    def arrange(folder: Path, made: Made) -> list[str]:
        training.tokenizer().save_pretrained(folder / "bad")
        edit(folder / "bad")
        return ["--train_file", "corpus.txt", "--output_dir", "run", *GIVEN_TOKENIZER, "--tokenizer_name", "bad"]

    return arrange


def content(text: str | bytes, name: str = "tokenizer.json") -> Edit:
    """Replaces a file."""
    return lambda folder: (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def changed(change: Callable[[dict[str, Any]], object], name: str = "tokenizer.json") -> Edit:
    """Changes a file's JSON."""

    def edit(folder: Path) -> None:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
        change(value)
        (folder / name).write_text(json.dumps(value), encoding="utf-8")

    return edit


def vocabulary(**tokens: Any) -> Edit:
    return changed(lambda value: value["model"]["vocab"].update(tokens))


def setting(**values: Any) -> Edit:
    return changed(lambda value: value.update(values), "tokenizer_config.json")


def with_code(folder: Path) -> None:
    """A tokenizer whose class is in a file beside it."""
    setting(auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, tokenizer_class="Evil")(folder)
    (folder / "evil.py").write_text(f"open({str(folder.parent / RAN)!r}, 'w')\n")


def sparse(size: int) -> Edit:
    """A file of this size, of which nothing is on the disk."""

    def edit(folder: Path) -> None:
        with (folder / "tokenizer.json").open("wb") as file:
            file.truncate(size)

    return edit


NAMED = ("`tokenizer_name`", "'bad'")
CASES = (
    ProcessCase("file without end", edited(sparse(2**30)), ("`tokenizer_name`", "1,024 MiB", "at most 128")),
    ProcessCase(
        "ten million entries",
        edited(content(b'{"model":{"vocab":{' + b'"":0,' * 10_000_000 + b'"a":1}}}')),
        ("`tokenizer_name`", "10,000,00", "at most 5,000,000 are read", "smaller vocabulary"),
    ),
    Case(
        "ten million lines",
        edited(content(b"a\n" * 10_000_000, "vocab.txt")),
        ("'bad/vocab.txt'", "10,000,000 entries", "at most 5,000,000"),
    ),
    ProcessCase("code beside it", edited(with_code), (*NAMED, "no such code is run here")),
    ProcessCase("cut short", edited(content('{"version": "1.0", "model": {"ty')), (*NAMED, "Give a Hub id or")),
    Case("empty", edited(content("")), (*NAMED, "Expecting value")),
    Case("binary", edited(content(bytes(range(128, 256)))), (*NAMED, "'utf-8' codec")),
    Case("list", edited(content("[]")), (*NAMED, "cannot load a tokenizer")),
    Case("nested too deep", edited(content("[" * 100_000)), (*NAMED, "recursion")),
    Case("unknown model", edited(changed(lambda value: value["model"].update(type="X"))), (*NAMED, "did not match")),
    Case("no unknown token", edited(changed(lambda value: value["model"].update(vocab={}))), (*NAMED, "[UNK]")),
    Case("id below none", edited(vocabulary(the=-5)), (*NAMED, "too small")),
    Case("id beyond all numbers", edited(vocabulary(the=2**40)), (*NAMED, "too large")),
    Case("id that is text", edited(vocabulary(the="7")), (*NAMED, "cannot load a tokenizer")),
    ProcessCase("gap of ten million", edited(vocabulary(the=10**7)), (*NAMED, "numbers them up to 10,000,000")),
    Case(
        "pattern that is none",
        edited(
            changed(
                lambda value: value.update(
                    pre_tokenizer={
                        "type": "Split",
                        "pattern": {"Regex": "(a+"},
                        "behavior": "Isolated",
                        "invert": False,
                    }
                )
            )
        ),
        (*NAMED, "parenthesis"),
    ),
    Case("class that is a number", edited(setting(tokenizer_class=5)), (*NAMED, "cannot load a tokenizer")),
    Case("settings that are a list", edited(content("[]", "tokenizer_config.json")), (*NAMED, "cannot load")),
    Case("length that is text", edited(setting(model_max_length="x")), (*NAMED, "cannot load a tokenizer")),
    Case("mask that is padding", edited(setting(mask_token="[PAD]")), (*NAMED, "'[PAD]'", "one of its own")),
    Case(
        "nothing but special tokens",
        edited(
            changed(
                lambda value: value["model"].update(
                    vocab={token: number for token, number in value["model"]["vocab"].items() if number < 5}
                )
            )
        ),
        (*NAMED, "special tokens only"),
    ),
    Case(
        "file instead of a directory",
        lambda folder, made: [*edited(lambda bad: None)(folder, made)[:-1], "corpus.txt"],
        ("`tokenizer_name`", "'corpus.txt'", "Give a Hub id or a directory"),
    ),
    Case(
        "name that is no name",
        lambda folder, made: [*edited(lambda bad: None)(folder, made)[:-1], "../" * 50 + "etc"],
        ("`tokenizer_name`", "../etc", "Give a Hub id or a directory"),
    ),
)
