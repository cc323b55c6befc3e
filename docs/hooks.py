"""What MkDocs and griffe need to know of this repository.

For MkDocs, a hook: README, changelog and measurements become pages, without a second copy of their text. For griffe,
an extension: docstrings in the style of Hugging Face become Markdown. In both, [`Name`] becomes a link.
"""

import ast
import posixpath
import re
import textwrap
from functools import cache
from pathlib import Path

import griffe
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/*",
    "results/*",
    "results/*/*",
    "results/*/figures/*",
)
SUFFIXES = (".md", ".png", ".html")

logger = get_plugin_logger("hooks")


# Files of the repository as pages


@cache
def included() -> tuple[str, ...]:
    """Returns the files outside `docs/` that the site takes in, each under its own path."""
    found = (path for pattern in PAGES for path in sorted(ROOT.glob(pattern)) if path.suffix in SUFFIXES)
    return tuple(path.relative_to(ROOT).as_posix() for path in found)


def on_config(config):
    """Lists every experiment under "Measurements"."""
    pages = [name for name in included() if name.startswith(("results/", "benchmarks/")) and name.endswith(".md")]
    for item in config.nav:
        if "Measurements" in item:
            item["Measurements"] = pages
    return config


def on_files(files, config):
    for name in included():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown, page, config, files):
    name = page.file.src_uri
    markdown = as_site_links(markdown, name if name in included() else f"docs/{name}")
    return linked(markdown, *documented(load_package()))


def as_site_links(text: str, name: str) -> str:
    """Turns links that lead from a file of the repository to another into links between their pages.

    The pages of `docs/` lie at the root of the site. Where a link would lead out of it, the file is named.

    Args:
        text (`str`): Markdown of the file.
        name (`str`): Its path in the repository.
    """

    def page(match: re.Match) -> str:
        label, (target, *anchor) = match["label"], match["target"].partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        if ":" in target or not target:
            return match[0]
        if path in included() or (path.startswith("docs/") and (ROOT / path).is_file()):
            folder = posixpath.dirname(name.removeprefix("docs/")) or "."
            return f"[{label}]({posixpath.relpath(path.removeprefix('docs/'), folder)}{''.join(anchor)})"
        return f"`{path}`" if label.strip("`") == path else f"{label} (`{path}`)"

    return re.sub(r"(?<!!)\[(?P<label>[^\[\]]+)\]\((?P<target>[^()\s]+)\)", page, text)


# References


@cache
def load_package() -> griffe.Module:
    return griffe.load("predrec", search_paths=[str(ROOT)])


def documented(package: griffe.Module) -> tuple[dict[str, list[str]], set[str]]:
    """Returns full names by short name of what the reference pages show, and the short names of all there is."""
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs/reference").glob("*.md"))
    shown, names, known = set(re.findall(r"^::: (\S+)", pages, flags=re.MULTILINE)), {}, set()
    for item in walk(package):
        method = item.parent is not None and item.parent.is_class
        short = f"{item.parent.name}.{item.name}" if method else item.name
        if item.is_module:
            short = item.path
        known.add(short)
        parents = {item.path, item.parent.path if item.parent else "", item.module.path}
        public = not item.name.startswith("_") and item.has_docstring
        if public and parents & shown:
            names.setdefault(short, []).append(item.path)
    return names, known


def walk(item: griffe.Object):
    yield item
    for member in item.members.values():
        if not member.is_alias:
            yield from walk(member)


def linked(text: str, names: dict[str, list[str]], known: set[str], scope: str = "") -> str:
    """Turns [`Name`] into a link to its reference entry; names of other libraries become plain code.

    `scope` is the class or the module that the text is about: its own names come first.
    """

    def link(match: re.Match) -> str:
        method = f"{scope.rpartition('.')[2]}.{match[1]}"
        found = names.get(match[1]) or names.get(method, [])
        near = [path for path in found if path.startswith(f"{scope}.")] or found
        if len(near) == 1:
            return f"[`{match[1]}`][{near[0]}]"
        if match[1] in known or method in known:
            logger.warning(f"{scope or 'A page'}: [`{match[1]}`] has {len(near)} entries in the reference, not one.")
        return f"`{match[1]}`"

    return re.sub(r"\[`([\w.]+)`\](?![\[(])", link, text)


# Docstrings

TITLES = {
    "Args": "Parameters",
    "Returns": "Returns",
    "Raises": "Raises",
    "Reference": "Reference",
    "Example": "Example",
}


class HuggingFaceDocstrings(griffe.Extension):
    """Turns docstrings into Markdown: sections, and `name (type, defaults to ...): text` into definitions."""

    def on_package(self, *, pkg: griffe.Module, **kwargs) -> None:
        if pkg.name != "predrec":
            return
        names, known = documented(pkg)
        shown = {path for paths in names.values() for path in paths}
        for item in walk(pkg):
            if item.path in shown:
                scope = item if item.is_class else item.parent
                item.docstring.value = linked(to_markdown(item), names, known, scope.path if scope else "")


def to_markdown(item: griffe.Object) -> str:
    parts, defaults = [], default_values(item)
    for title, body in sections(item.docstring.value):
        if title:
            parts.append(f"**{TITLES[title]}**")
        if title == "Args":
            parts += [definition(*split_entry(entry), defaults) for entry in entries(body)]
        elif title == "Raises":
            parts += [definition(*split_entry(entry), {}) for entry in entries(body)]
        else:
            parts.append(body)
    if item.is_class and "\nArgs:\n" not in item.docstring.value:
        fields = [field for field in map(explained_field, item.attributes.values()) if field]
        parts += ["**Parameters**", *fields] if fields else []
    return "\n\n".join(parts)


def sections(text: str) -> list[tuple[str, str]]:
    """Splits a docstring: the text first, under no title, then the indented sections, dedented."""
    pieces = re.split(rf"^({'|'.join(TITLES)}):\n", text, flags=re.MULTILINE)
    found = [("", pieces[0].strip())]
    for title, body in zip(pieces[1::2], pieces[2::2], strict=True):
        inside = re.match(r"(?:(?:[ ]{4}.*)?(?:\n|\Z))*", body)[0]
        found += [(title, textwrap.dedent(inside).strip()), ("", body[len(inside) :].strip())]
    return [(title, body) for title, body in found if body]


def entries(body: str) -> list[str]:
    """Splits a section at the lines that are not indented."""
    return [entry.strip() for entry in re.split(r"\n(?=\S)", body)]


def split_entry(entry: str) -> tuple[str, str]:
    """Splits at the first colon that stands in no parentheses and no code."""
    depth, code = 0, False
    for place, character in enumerate(entry):
        code ^= character == "`"
        depth += 0 if code else (character in "([") - (character in ")]")
        if character == ":" and not code and not depth:
            return " ".join(entry[:place].split()), textwrap.dedent(" " * 8 + entry[place + 1 :].strip()).strip()
    return entry, ""


def definition(head: str, text: str, defaults: dict[str, str]) -> str:
    """Returns an entry of a definition list: names and types, then the text."""
    match = re.fullmatch(r"(?P<names>[\w*]+(?:, [\w*]+)*)(?: \((?P<type>.*)\))?", head)
    if not match:
        term = re.sub(r"(^|, )(\w+) \(", r"\1`\2` (", head)
    else:
        names, kind = match["names"].split(", "), match["type"] or ""
        kind = re.sub(r"(default(?:s)? to )(?!`|a |the )([^`,;]+)$", r"\1`\2`", kind)
        if len(names) == 1 and names[0] in defaults and "default" not in kind and "optional" not in kind:
            kind = f"{kind}, defaults to `{defaults[names[0]]}`".removeprefix(", ")
        term = ", ".join(f"**`{name}`**" for name in names) + (f" ({kind})" if kind else "")
    lines = "\n".join(" ".join(line.split()) if line.strip() else "" for line in text.splitlines())
    return f"{term}\n:   " + textwrap.indent(lines or "&nbsp;", "    ").strip()


def default_values(item: griffe.Object) -> dict[str, str]:
    """Returns the defaults in a signature, or of a dataclass's fields, as source text."""
    if item.is_function:
        return {p.name: str(p.default) for p in item.parameters if p.default not in (None, "None")}
    if not item.is_class:
        return {}
    if "__init__" in item.members:
        return default_values(item.members["__init__"])
    found = {name: field_default(str(one.value)) for name, one in item.attributes.items() if one.value is not None}
    return {name: default for name, default in found.items() if default not in (None, "None")}


def field_default(source: str) -> str | None:
    """Returns the default of a dataclass's field from what it is assigned."""
    call = ast.parse(source, mode="eval").body
    if not (isinstance(call, ast.Call) and getattr(call.func, "id", "") == "field"):
        return source
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if isinstance(given.get("default_factory"), ast.Lambda):
        return ast.unparse(given["default_factory"].body)
    if "default_factory" in given:
        return {"list": "[]", "dict": "{}"}.get(ast.unparse(given["default_factory"]))
    return ast.unparse(given["default"]) if "default" in given else None


def explained_field(attribute: griffe.Attribute) -> str | None:
    """Returns the entry of a dataclass's field that carries its explanation as `metadata`."""
    source = str(attribute.value or "")
    if "metadata" not in source:
        return None
    given = {keyword.arg: keyword.value for keyword in ast.parse(source, mode="eval").body.keywords}
    text, default = ast.literal_eval(given["metadata"])["help"], field_default(source)
    kind = f"`{attribute.annotation}`" + (f", defaults to `{default}`" if default is not None else "")
    return definition(f"{attribute.name} ({kind})", text, {})
