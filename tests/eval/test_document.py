"""Documents as Markdown and as a page that needs no other file."""

import base64
from itertools import pairwise

import pytest

from predrec.eval.document import Heading, Paragraph, Picture, Table, to_html, to_markdown, write_document

from .made import Page

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><circle r="1"/></svg>'
PICTURE = Picture("radar", "Six measures", SVG, b"\x89PNG")
TABLE = Table(["task", "score"], [["sst2", "**0.7**"], ["cola", "0.1"]], "Scores")
BLOCKS = [Heading("Evaluation", 1), Paragraph("Best in **bold**, by `predrec report`."), TABLE, PICTURE]
HOSTILE = """<script>alert("1") & '2'</script>"""


def page_of(*blocks, title: str = "Title") -> Page:
    return Page(to_html(title, blocks))


@pytest.mark.parametrize("level", [1, 2, 3])
def test_markdown_of_a_heading_has_its_level(level):
    assert to_markdown([Heading("Probes", level)]) == f"{'#' * level} Probes\n"


def test_markdown_of_a_paragraph_is_its_text():
    assert to_markdown([Paragraph("Best in **bold**.")]) == "Best in **bold**.\n"


def test_markdown_of_a_table_has_a_line_per_row():
    expected = "| task | score |\n|---|---|\n| sst2 | **0.7** |\n| cola | 0.1 |\n"
    assert to_markdown([Table(TABLE.header, TABLE.rows)]) == expected


def test_markdown_of_a_table_has_its_caption_above():
    assert to_markdown([TABLE]).startswith("Scores\n\n| task |")


def test_markdown_of_a_table_escapes_pipes():
    assert to_markdown([Table(["a|b"], [["c|d"]])]) == "| a\\|b |\n|---|\n| c\\|d |\n"


def test_markdown_of_a_table_keeps_empty_cells():
    assert to_markdown([Table(["a", "b"], [["", "1"]])]).splitlines()[-1] == "|   | 1 |"


def test_markdown_of_a_table_without_rows_is_its_header():
    assert to_markdown([Table(["a"], [])]) == "| a |\n|---|\n"


def test_markdown_of_a_picture_shows_the_file():
    assert to_markdown([PICTURE]) == "![Six measures](figures/radar.png)\n"


def test_markdown_separates_blocks():
    assert to_markdown([Heading("One"), Paragraph("Two")]) == "## One\n\nTwo\n"


@pytest.mark.parametrize("level", [1, 2, 3])
def test_html_of_a_heading_has_its_level(level):
    assert f"<h{level}>Probes</h{level}>" in to_html("Title", [Heading("Probes", level)])


def test_html_of_a_paragraph_has_bold_and_code():
    text = to_html("Title", [Paragraph("Best in **bold**, by `predrec report`.")])
    assert "<p>Best in <strong>bold</strong>, by <code>predrec report</code>.</p>" in text


def test_html_of_a_table_has_a_row_per_row():
    assert [tag for tag, _ in page_of(TABLE).tags].count("tr") == 3


def test_html_of_a_table_has_its_header():
    assert "<th>task</th><th>score</th>" in to_html("Title", [TABLE])


def test_html_of_a_table_has_bold_cells():
    assert "<td>sst2</td><td><strong>0.7</strong></td>" in to_html("Title", [TABLE])


def test_html_of_a_table_has_its_caption():
    assert "<caption>Scores</caption>" in to_html("Title", [TABLE])


def test_html_of_a_table_without_caption_has_none():
    assert "<caption>" not in to_html("Title", [Table(["a"], [["b"]])])


def test_html_of_a_table_keeps_pipes():
    assert "<td>c|d</td>" in to_html("Title", [Table(["a"], [["c|d"]])])


def test_html_of_a_table_wraps_long_cells_only():
    text = to_html("Title", [Table(["a", "b"], [["short", "long " * 10]])])
    assert text.count('<td class="words">long') == 1 and "<td>short</td>" in text


def test_html_of_a_picture_holds_the_drawing():
    image = next(attributes for tag, attributes in page_of(PICTURE).tags if tag == "img")
    assert base64.b64decode(image["src"].removeprefix("data:image/svg+xml;base64,")) == SVG


def test_html_of_a_picture_has_a_text_for_who_cannot_see_it():
    assert ("img", "Six measures") in [(tag, found.get("alt")) for tag, found in page_of(PICTURE).tags]


HOSTILE_BLOCKS = {
    "heading": Heading(HOSTILE),
    "paragraph": Paragraph(HOSTILE),
    "code": Paragraph(f"`{HOSTILE}`"),
    "header": Table([HOSTILE], []),
    "cell": Table(["a"], [[HOSTILE]]),
    "caption": Table(["a"], [], HOSTILE),
}


@pytest.mark.parametrize("block", HOSTILE_BLOCKS.values(), ids=HOSTILE_BLOCKS)
def test_html_of_text_is_escaped(block):
    assert "script" not in [tag for tag, _ in page_of(block).tags]


@pytest.mark.parametrize("block", HOSTILE_BLOCKS.values(), ids=HOSTILE_BLOCKS)
def test_html_of_text_reads_as_it_was(block):
    assert HOSTILE in page_of(block).texts


def test_html_of_a_title_is_escaped():
    assert HOSTILE in page_of(title=HOSTILE).texts


def test_html_of_an_alternative_text_is_escaped():
    page = page_of(Picture("a", '"><script>', SVG, b""))
    assert ("img", '"><script>') in [(tag, attributes.get("alt")) for tag, attributes in page.tags]


def test_html_has_balanced_tags():
    assert page_of(*BLOCKS, *HOSTILE_BLOCKS.values()).unbalanced == []


def test_html_leads_nowhere():
    assert all(reference.startswith("data:") for reference in page_of(*BLOCKS).references)


@pytest.mark.parametrize("external", ["http://", "https://", "@import", "url(", "<script", "<link"])
def test_html_loads_nothing(external):
    assert external not in to_html("Title", BLOCKS)


def test_html_without_blocks_is_a_page():
    assert page_of().unbalanced == []


def test_html_keeps_the_order_of_blocks():
    text = to_html("Title", [Paragraph(name) for name in ("first", "second", "third")])
    places = [text.index(f"<p>{name}</p>") for name in ("first", "second", "third")]
    assert all(one < other for one, other in pairwise(places))


def test_write_document_returns_its_files(tmp_path):
    assert write_document(tmp_path, "Title", BLOCKS) == (tmp_path / "report.md", tmp_path / "report.html")


def test_write_document_writes_markdown(tmp_path):
    markdown, _ = write_document(tmp_path, "Title", BLOCKS)
    assert markdown.read_text(encoding="utf-8") == to_markdown(BLOCKS)


def test_write_document_writes_a_page(tmp_path):
    _, page = write_document(tmp_path, "Title", BLOCKS)
    assert page.read_text(encoding="utf-8") == to_html("Title", BLOCKS)


def test_write_document_writes_the_pictures_that_markdown_shows(tmp_path):
    write_document(tmp_path, "Title", BLOCKS)
    assert (tmp_path / "figures/radar.png").read_bytes() == PICTURE.png


def test_write_document_makes_the_folder(tmp_path):
    markdown, _ = write_document(tmp_path / "new" / "folder", "Title", BLOCKS)
    assert markdown.is_file()


def test_write_document_takes_a_path_as_text(tmp_path):
    markdown, _ = write_document(str(tmp_path), "Title", BLOCKS)
    assert markdown.is_file()


def test_write_document_keeps_letters_of_every_alphabet(tmp_path):
    markdown, _ = write_document(tmp_path, "Title", [Paragraph("± “ä” θ")])
    assert markdown.read_text(encoding="utf-8") == "± “ä” θ\n"


def test_write_document_replaces_an_earlier_one(tmp_path):
    write_document(tmp_path, "Title", [Paragraph("earlier")])
    markdown, _ = write_document(tmp_path, "Title", [Paragraph("later")])
    assert markdown.read_text(encoding="utf-8") == "later\n"
