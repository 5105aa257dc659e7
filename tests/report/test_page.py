"""Blocks as Markdown and HTML, with text that means harm."""

import base64
import html.parser

import pytest

from pipeline.report.page import Code, Gallery, Heading, Paragraph, Picture, to_html, to_markdown
from pipeline.tables import Table, printable

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=http://example.org/x onerror=alert(1)>',
    "a\nb\r\n# heading",
    "nul\x00bell\x07escape\x1b[31m",
    "right\u202eto left",
    "lone \udcff surrogate",
    "../../etc/passwd",
    "a|b `c` *d* [e](javascript:f)",
    "```\n<b>",
]


class Elements(html.parser.HTMLParser):
    """Collects start tags with attributes, text, and whether every element is closed in order."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text, self.open = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def blocks(text):
    return [
        Heading(text),
        Paragraph(text),
        Code([text, text]),
        Gallery([Picture("a.png", text, b"png")]),
        Table(text, [text, "x"], [[text, "1"]], num_names=1),
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_html_shows_hostile_text_as_text(text):
    page = to_html(text, blocks(text))
    page.encode("utf-8")
    elements = Elements(page)
    assert elements.open == []
    assert {tag for tag, _ in elements.found} == {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "pre", "div", "figure", "img"),
        *("figcaption", "table", "thead", "tbody", "tr", "th", "td"),
    }
    for tag, attributes in elements.found:
        allowed = {"meta": {"charset", "name", "content", "http-equiv"}, "img": {"alt", "src"}}
        assert set(attributes) <= allowed.get(tag, {"class", "lang"})
        assert attributes.get("src", "data:").startswith("data:")
    shown = [part for part in elements.text if printable(text) in part]
    # title, h1, h2, p, pre, caption, title of the table, th, td
    assert len(shown) == 9


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_keeps_hostile_text_on_its_line_and_out_of_html(text):
    plain, hostile = (to_markdown(t, blocks(t)).splitlines() for t in ("text", text))
    assert len(hostile) == len(plain)
    outside = "\n".join(line for line in hostile if line != printable(text))  # but for the two lines of code
    assert "<" not in outside
    assert "](javascript" not in outside.replace("\\](", "")
    for line in hostile:
        if line.startswith("| "):
            assert line.replace("\\|", "").count("|") == 3


def test_code_in_markdown_cannot_close_its_fence():
    lines = to_markdown("t", [Code(["````", "x"])]).splitlines()
    assert lines[2:] == ["`````", "````", "x", "`````"]


def test_pictures_are_inlined_in_html_and_beside_the_markdown():
    blocks = [Gallery([Picture("a.png", "what", b"\x89PNG")])]
    assert to_markdown("t", blocks) == "# t\n\n![what](a.png)\nwhat\n"
    assert f'src="data:image/png;base64,{base64.b64encode(bytes([0x89]) + b"PNG").decode()}"' in to_html(
        "t", blocks
    )


def test_the_page_forbids_scripts_and_the_network_and_fits_a_phone():
    metas = [attributes for tag, attributes in Elements(to_html("t", [])).found if tag == "meta"]
    policy = next(meta["content"] for meta in metas if "http-equiv" in meta)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas
