"""The command line `dmbp`: parses first, and imports the command that runs, and JAX, only then.

`parser` has every option; one file per command has `run(args) -> exit code`.
"""

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from dmbp_jax.cli.output import BAD_INPUT, INTERRUPTED, NOT_READ, one_line
from dmbp_jax.cli.parser import COMMANDS as COMMANDS
from dmbp_jax.cli.parser import build_parser as build_parser
from dmbp_jax.errors import DmbpError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; mistakes in the input are one line on stderr and exit code 2.

    Anything else that goes wrong is a bug of ours and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):  # a file's name may be no text in their encoding
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    args = build_parser().parse_args(argv)
    try:
        code = import_module(f"dmbp_jax.cli.{args.command}").run(args)
        sys.stdout.flush()  # here, where a closed pipe is caught
        return code
    except BrokenPipeError:  # the reader of our output, `head` for instance, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOT_READ
    except (DmbpError, OSError) as error:
        print(f"dmbp: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("dmbp: interrupted", file=sys.stderr)
        return INTERRUPTED
