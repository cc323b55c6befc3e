"""A document of headings, paragraphs, tables and pictures, as Markdown and as one self-contained web page."""

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 82rem; margin: 0 auto;
  padding: 1rem; }
p { max-width: 46rem; }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 .5rem; } h1 { margin-top: 1rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: #555; padding-bottom: .25rem; }
th, td { padding: .25rem .5rem .25rem 0; text-align: left; white-space: nowrap; border-bottom: 1px solid #e2e2e2; }
th { border-bottom: 2px solid #1a1a1a; }
td.words { white-space: normal; min-width: 12rem; }
img { max-width: 100%; height: auto; }
.wide img { width: 100%; min-width: 40rem; max-width: 60rem; }
code { background: #f3f3f3; padding: 0 .2em; overflow-wrap: anywhere; }
@media print { body { max-width: none; font-size: 11px; } .wide { overflow: visible; } h2 { break-after: avoid; } }
"""

LONG_CELL = 40


@dataclass(frozen=True)
class Heading:
    """A heading of level 1 to 3."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Text; `**bold**` and `` `code` `` are understood."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table of cells, which may hold `**bold**`."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture, saved as PNG beside the Markdown and drawn into the page as SVG."""

    name: str
    alt: str
    svg: bytes
    png: bytes


Block = Heading | Paragraph | Table | Picture


def to_markdown(blocks: Sequence[Block]) -> str:
    """Renders Markdown; pictures are in `figures/`."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Paragraph):
        return block.text
    if isinstance(block, Picture):
        return f"![{block.alt}](figures/{block.name}.png)"
    rows = [block.header, *block.rows]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") or " " for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(block.header))
    return "\n".join([f"{block.caption}\n", *lines] if block.caption else lines)


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """Renders one page that needs no other file."""
    body = "\n".join(_html(block) for block in blocks)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{_inline(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        return f"<p>{_inline(block.text)}</p>"
    if isinstance(block, Picture):
        data = base64.b64encode(block.svg).decode()
        return f'<div class="wide"><img alt="{html.escape(block.alt)}" src="data:image/svg+xml;base64,{data}"></div>'
    caption = f"<caption>{_inline(block.caption)}</caption>" if block.caption else ""
    head = "".join(f"<th>{_inline(cell)}</th>" for cell in block.header)
    rows = "\n".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in block.rows)
    return (
        f'<div class="wide"><table>{caption}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>'
    )


def _cell(cell: str) -> str:
    kind = ' class="words"' if len(cell) > LONG_CELL else ""
    return f"<td{kind}>{_inline(cell)}</td>"


def _inline(text: str) -> str:
    text = html.escape(text, quote=False)
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)


def write_document(folder: str | Path, title: str, blocks: Sequence[Block]) -> tuple[Path, Path]:
    """Writes `report.md` with its `figures/`, and `report.html`; returns both paths."""
    folder = Path(folder)
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for block in blocks:
        if isinstance(block, Picture):
            (figures / f"{block.name}.png").write_bytes(block.png)
    markdown, page = folder / "report.md", folder / "report.html"
    markdown.write_text(to_markdown(blocks), encoding="utf-8")
    page.write_text(to_html(title, blocks), encoding="utf-8")
    return markdown, page
