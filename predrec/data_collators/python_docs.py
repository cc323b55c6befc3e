"""The embedded corpus: the English prose that ships with every Python."""

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idlelib", "turtledemo", "lib2to3", "__pycache__"}


def python_documents() -> list[str]:
    """Returns the language reference, a document per topic, and the standard library's docstrings, one per module.

    About 2 MB of text under the Python Software Foundation licence. Source files are parsed, never imported.
    """
    library = Path(sysconfig.get_path("stdlib"))
    return [text for text in (*_topics(library), *_docstrings(library)) if text.strip()]


def _topics(library: Path) -> Iterator[str]:
    path = library / "pydoc_data" / "topics.py"
    if not path.is_file():
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Dict):
            yield from (value.value for value in node.values if isinstance(value, ast.Constant))


def _docstrings(library: Path) -> Iterator[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for path in sorted(library.rglob("*.py")):
        if SKIPPED.intersection(path.relative_to(library).parts) or path.parent.name == "pydoc_data":
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue  # The library keeps a few files that are broken on purpose.
        strings = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented))
        yield "\n\n".join(string for string in strings if string)
