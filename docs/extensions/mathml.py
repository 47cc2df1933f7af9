"""Equations as MathML, which browsers draw themselves: the site needs no connection for them."""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

TAG = re.compile(r"\\tag\{(\w+)\}")


def equation(source: str, block: bool) -> str:
    r"""The MathML of a formula; `\tag{n}` becomes a number beside it."""
    mathml = tex2mathml(TAG.sub("", source).strip(), as_block=block)
    if not block:
        return mathml
    number = TAG.search(source)
    label = f'<span class="number">({number.group(1)})</span>' if number else ""
    return f'<div class="equation">{mathml}{label}</div>'


def inline(translator: Any, node: nodes.math) -> None:
    """A formula in a sentence."""
    translator.body.append(equation(node.astext(), block=False))
    raise nodes.SkipNode


def display(translator: Any, node: nodes.math_block) -> None:
    """A formula of its own."""
    translator.body.append(equation(node.astext(), block=True))
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """The renderer `mathml` for `html_math_renderer`."""
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
