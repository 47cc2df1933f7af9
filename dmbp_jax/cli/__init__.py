"""The command line `dmbp`: parses first, and imports JAX only inside the command that runs.

One file per command, each with `add_parser(subparsers)` and `run(args) -> exit code`.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from dmbp_jax.cli import (
    convert,
    demo,
    evaluate,
    explain,
    figures,
    networks,
    report,
    run,
    verify,
)
from dmbp_jax.cli.reporting import BAD_INPUT, INTERRUPTED, one_line
from dmbp_jax.errors import DmbpError
from dmbp_jax.version import __version__

COMMANDS = (demo, explain, run, report, verify, evaluate, figures, networks, convert)


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes are one line, like every other error of the command."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, without importing JAX."""
    parser = _Parser(
        prog="dmbp",
        description="Attribution maps by Disentangled Masked Backpropagation: which pixels are "
        "evidence for a label, and which against it.",
        epilog="Start with: dmbp demo",
    )
    parser.add_argument("--version", action="version", version=f"dmbp-jax {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; mistakes in the input are one line on stderr and exit code 2.

    Anything else that goes wrong is a bug of ours and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):  # a file's name may be no text in their encoding
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    args = build_parser().parse_args(argv)
    try:
        return args.run(args)
    except BrokenPipeError:  # the reader of our output, `head` for instance, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (DmbpError, OSError) as error:
        print(f"dmbp: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("dmbp: interrupted", file=sys.stderr)
        return INTERRUPTED
