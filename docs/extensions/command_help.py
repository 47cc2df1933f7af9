"""The directive `command-help`: what `dmbp COMMAND --help` prints, from the parser itself."""

import argparse
import os

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx


def help_of(command: str) -> str:
    """The help of a command, or of `dmbp` for "", a hundred columns wide."""
    os.environ.update(COLUMNS="100", NO_COLOR="1")
    from dmbp_jax.cli import build_parser

    parser = build_parser()
    if command:
        (commands,) = (
            action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
        )
        parser = commands.choices[command]
    return parser.format_help()


class CommandHelp(Directive):
    """The help of one command as a literal block."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The block."""
        text = help_of(self.arguments[0] if self.arguments else "")
        block = nodes.literal_block(text, text)
        block["language"] = "text"
        return [block]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
