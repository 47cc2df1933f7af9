"""Docstrings are plain text with `names`: what reStructuredText would take for markup is escaped.

`name` is code; |h|, *args and trailing_ are ordinary characters, and an indented equation is shown
as it is written.
"""

import re
from typing import Any

from sphinx.application import Sphinx

LITERAL = re.compile(r"``?([^`]+)``?")
MARKUP = re.compile(r"(?<!\\)(?!^\s*\* )([|*])|(?<=\w)(_)(?=\W|$)", re.M)
SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Examples?):")


def escape(text: str) -> str:
    """A run of lines, `names` as code and markup escaped elsewhere."""
    parts = LITERAL.split(text)
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = f"\\ ``{' '.join(part.split())}``\\ "  # may touch letters on both sides
        else:
            parts[i] = MARKUP.sub(lambda match: "\\" + match.group(), part)
    return "".join(parts)


def is_display(block: str) -> bool:
    """Whether a paragraph is an equation or code: all its lines are indented."""
    lines = block.split("\n")
    return all(line.startswith("    ") for line in lines) and not lines[0].lstrip().startswith(
        ("* ", "- ")
    )


def rewrite(lines: list[str]) -> list[str]:
    """The docstring with its text escaped, and displays before the first section set apart."""
    blocks, in_text = [], True
    for block in "\n".join(lines).split("\n\n"):
        in_text = in_text and not SECTION.match(block)
        if in_text and is_display(block):
            blocks.append("::\n\n" + block)
        elif ">>>" in block:
            blocks.append(block)
        else:
            blocks.append(escape(block))
    return "\n\n".join(blocks).split("\n")


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Of every docstring that autodoc reads."""
    lines[:] = rewrite(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Before napoleon, whose own markup must stay."""
    app.connect("autodoc-process-docstring", process, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
