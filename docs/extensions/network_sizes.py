"""The directive `network-sizes`: networks that are another one with its sizes set (partials)."""

from functools import partial
from importlib import import_module

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx


class NetworkSizes(Directive):
    """An entry for each partial of a module, with what is set."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The entries."""
        module = import_module(self.arguments[0])
        lines = []
        for name, size in vars(module).items():
            if isinstance(size, partial):
                given = ", ".join(
                    f"{key}={getattr(value, '__name__', value)}"
                    for key, value in size.keywords.items()
                )
                lines += [f".. py:data:: {name}", "", f"   ``{size.func.__name__}({given})``", ""]
        node = nodes.Element()
        self.state.nested_parse(StringList(lines, self.arguments[0]), self.content_offset, node)
        return node.children


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("network-sizes", NetworkSizes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
