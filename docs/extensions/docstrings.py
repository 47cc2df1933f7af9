"""Docstrings are plain text with `names`: what reStructuredText would take for markup is escaped.

|h|, *args, trailing_ and the like are ordinary characters in them.
"""

import re
from typing import Any

from sphinx.application import Sphinx

LITERAL = re.compile(r"(``.+?``|`[^`]+`)")
MARKUP = re.compile(r"(?<!\\)([|*])|(?<=\w)(_)(?=\W|$)")
SECTION = re.compile(r"^(Source|Example|Examples|Returns|Raises|Args|Attributes|Yields)(:)")


def escape(lines: list[str]) -> list[str]:
    """The lines with markup escaped outside of literals and of code."""
    escaped, code = [], None  # indentation of the doctest or block that a line belongs to
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.lstrip().startswith(">>>"):
            code = indent
        elif not line.strip() or (code is not None and indent < code):
            code = None
        if code is None:
            parts = LITERAL.split(line)
            parts[::2] = [MARKUP.sub(lambda m: "\\" + m.group(), part) for part in parts[::2]]
            line = "".join(parts)
        escaped.append(line)
    return escaped


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape, and set indented displays (equations in plain text) as literal blocks."""
    lines[:] = escape(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Before napoleon, whose own markup must stay."""
    app.connect("autodoc-process-docstring", process, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
