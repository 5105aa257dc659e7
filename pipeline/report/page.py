"""A page as a list of blocks, written as Markdown and as one self-contained HTML file."""

from __future__ import annotations

import base64
import dataclasses
import re
from collections.abc import Sequence

from pipeline.tables import Table, escape_html, escape_markdown, printable
from pipeline.tables import to_html as table_html
from pipeline.tables import to_markdown as table_markdown


@dataclasses.dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclasses.dataclass(frozen=True)
class Paragraph:
    text: str


@dataclasses.dataclass(frozen=True)
class Code:
    lines: list[str]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG, the name of its file and what it shows."""

    file: str
    caption: str
    png: bytes


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Pictures side by side, as many as fit."""

    pictures: list[Picture]


Block = Heading | Paragraph | Code | Gallery | Table

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto;
  padding: 0 1rem 3rem; max-width: 72rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1.2rem 0 .6rem; }
h2 { font-size: 1.3rem; margin: 2.4rem 0 .6rem; border-bottom: 1px solid #ccc; }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; }
p { max-width: 46rem; margin: .5rem 0; }
.scroll { overflow-x: auto; margin: .6rem 0 1.2rem; background: /* a shadow shows that the table continues */
  linear-gradient(to left, #fff 2rem, #fff0) right / 3rem 100% no-repeat local,
  linear-gradient(to left, #0003, #0000) right / .8rem 100% no-repeat scroll; }
table { border-collapse: separate; border-spacing: 0; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #e3e3e3; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #999; vertical-align: bottom; }
th, td { overflow-wrap: break-word; max-width: 26rem; }
th:first-child, td:first-child { position: sticky; left: 0; background: #fff; }
@media (max-width: 40rem) { th, td { max-width: 15rem; padding: .25rem .35rem; }
  th:first-child, td:first-child { max-width: 8.2rem; } }
.number { text-align: right; white-space: nowrap; }
.gallery { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; }
img { width: 100%; height: auto; border: 1px solid #e3e3e3; }
figcaption, .title { font-size: .875rem; color: #444; }
pre { background: #f5f5f5; padding: .6rem; overflow-x: auto; font-size: .8125rem; white-space: pre-wrap; }
"""
# The browser runs no script and opens no connection, whatever the names in the page contain.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """The page; pictures are part of it."""
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape_html(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
    )
    body = [_element("h1", escape_html(title)), *(_block_html(block) for block in blocks)]
    return head + "\n".join(body) + "\n</body>\n</html>\n"


def _element(tag: str, inner: str, css: str = "") -> str:
    return f'<{tag} class="{css}">{inner}</{tag}>' if css else f"<{tag}>{inner}</{tag}>"


def _block_html(block: Block) -> str:
    match block:
        case Heading():
            return _element(f"h{block.level}", escape_html(block.text))
        case Paragraph():
            return _element("p", escape_html(block.text))
        case Code():
            return _element("pre", "\n".join(map(escape_html, block.lines)))
        case Gallery():
            return _element("div", "\n".join(map(_picture_html, block.pictures)), "gallery")
        case Table():
            return table_html(block)


def _picture_html(picture: Picture) -> str:
    caption = escape_html(picture.caption)
    data = base64.b64encode(picture.png).decode("ascii")
    image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
    return _element("figure", image + _element("figcaption", caption))


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The page; pictures are files beside it."""
    return "\n\n".join([f"# {escape_markdown(title)}", *(_block_markdown(block) for block in blocks)]) + "\n"


def _block_markdown(block: Block) -> str:
    match block:
        case Heading():
            return "#" * block.level + " " + escape_markdown(block.text)
        case Paragraph():
            return escape_markdown(block.text)
        case Code():
            lines = [printable(line) for line in block.lines]
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", "\n".join(lines))), default=0))
            return "\n".join([fence, *lines, fence])
        case Gallery():
            return "\n\n".join(
                f"![{escape_markdown(p.caption)}]({p.file})\n{escape_markdown(p.caption)}"
                for p in block.pictures
            )
        case Table():
            return table_markdown(block)
