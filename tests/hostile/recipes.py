"""Recipes that are more than they look, or no recipes."""

from collections.abc import Callable
from pathlib import Path

from .cases import RAN, Case, Made, ProcessCase

BOMB = "text_column: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for name, new, old in (("seed", "b", "a"), ("optim", "c", "b"), ("bf16", "d", "c"), ("fp16", "e", "d"))
)
"""Ten thousand strings in ten lines, and ten times as many with every other line."""


def recipe(content: str | bytes, name: str = "bad.yaml") -> Callable[[Path, Made], list[str]]:
    """A recipe with this content, given alone."""

    def arrange(folder: Path, made: Made) -> list[str]:
        text = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(text.replace(b"FOLDER", str(folder).encode()))
        return [name]

    return arrange


NAMED = "'bad.yaml'"
CASES = (
    ProcessCase(
        "tag that runs code",
        recipe(f"output_dir: !!python/object/apply:os.system ['touch FOLDER/{RAN}']\n"),
        (NAMED, "the tag `tag:yaml.org,2002:python/object/apply:os.system` is not read", "line 1"),
    ),
    ProcessCase("alias bomb", recipe(BOMB), (NAMED, "the alias `*a` is not read", "write the value out")),
    ProcessCase("nested too deep", recipe("output_dir: " + "[" * 50_000), (NAMED, "nested too deep")),
    ProcessCase("huge", recipe("# " + "x" * 2**20), (NAMED, "more than 256 KiB", "it is no recipe")),
    Case("endless", lambda folder, made: ["/dev/zero"], ("'/dev/zero'", "more than 256 KiB")),
    Case(
        "merge key",
        recipe("base: &base {seed: 1}\n<<: *base\n"),
        (NAMED, "the alias `*base` is not read", "write the value out"),
    ),
    Case("key twice", recipe("output_dir: run\nseed: 1\nseed: 2\n"), (NAMED, "`seed` stands there twice", "line 3")),
    Case("key of a list", recipe("? [a, b]\n: c\n"), (NAMED, "a key is not a single word")),
    Case("two documents", recipe("seed: 1\n---\nseed: 2\n"), (NAMED, "expected a single document")),
    Case("null byte", recipe('output_dir: "a\\0b"\n'), (NAMED, "'--output_dir=a\\x00b'", "null character")),
    Case("half a character", recipe('output_dir: "a\\uD800b"\n'), (NAMED, "a\\ud800b", "not valid UTF-8")),
    Case("control character", recipe(b"output_dir: a\x07b\n"), (NAMED, "unacceptable character #x0007")),
    Case("binary", recipe(bytes(range(256))), (NAMED, "cannot be read", "'utf-8' codec")),
    Case("UTF-16", recipe("output_dir: run\n".encode("utf-16")), (NAMED, "cannot be read", "'utf-8' codec")),
    Case("list of lists", recipe("train_file: [[a.txt]]\n"), (NAMED, "`train_file`", "['a.txt'] is one of them")),
    Case(
        "entry that is an argument",
        recipe("train_file: [--bf16, a.txt]\n"),
        (NAMED, "`train_file`: '--bf16' begins with a dash", "./--bf16"),
    ),
    ProcessCase(
        "misspelt name",
        recipe("output_dir: run\nlerning_rate: 1\n"),
        (NAMED, "`lerning_rate`", "did you mean `learning_rate`?"),
    ),
    Case("value of the wrong type", recipe("output_dir: run\nseed: blue\n"), (NAMED, "--seed", "'blue'")),
    Case("directory", lambda folder, made: ["."], ("'.'", "Is a directory")),
    Case("name too long", lambda folder, made: ["x" * 300 + ".yaml"], ("cannot be read", "File name too long")),
)
