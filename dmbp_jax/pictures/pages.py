"""HTML pages that need no other file and no network: a template, tables, pictures inside."""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files


def fill_page(package: str, name: str, parts: Mapping[str, str]) -> str:
    """A page that lies in a package, with every {{PLACE}} filled by its part."""
    template = files(package).joinpath(name).read_text("utf-8")
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda place: parts[place[1]], template)


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """A table of texts, which scrolls by itself where it is too wide."""
    lines = [_line(head, "th")] if head else []
    lines += [_line(row, "td") for row in rows]
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _line(cells: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"


def embed(data: bytes, kind: str) -> str:
    """The address of a picture that stands in the page itself."""
    return f"data:image/{kind};base64,{b64encode(data).decode()}"
