"""What the commands leave: exit codes, a mistake on one line, and no file written by accident."""

import os
from collections.abc import Sequence
from pathlib import Path

from dmbp_jax.errors import InputError

INCOMPLETE = 1  # done, but some pictures were left out, or some shards differ
BAD_INPUT = 2
INTERRUPTED = 130
NOT_READ = 141  # as of a program that the signal of a closed pipe ends


def one_line(error: BaseException) -> str:
    """The message of an error on one line; an operating system's error names its file first."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def refuse_overwrite(files: Sequence[Path], *, force: bool) -> None:
    """Refuse to overwrite files without `force`."""
    taken = [path for path in files if path.exists()]
    if taken and not force:
        others = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise InputError(f"{taken[0]}{others} would be overwritten; pass --force, or another name.")


def make_folder(folder: Path) -> None:
    """Make the folder of the results, before hours are spent on them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"-o: Expected a folder, got the file {folder}.") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"-o: Expected a folder that can be written to, got {folder}.")
