"""Looking into dataset folders: roots, files below them, text files, with errors that explain."""

import os
from pathlib import Path

from dmbp_jax.errors import DataError, InputTypeError


def check_root(root: str | os.PathLike[str], expected: str) -> Path:
    """The folder of a dataset.

    Raises:
      DataError: no such folder; the message says what is expected in it.
      InputTypeError: not a path.
    """
    if not isinstance(root, (str, os.PathLike)):
        raise InputTypeError(f"root: Expected a path, got {type(root).__name__}.")
    folder = Path(root)
    if not folder.is_dir():
        raise DataError(f"root: Expected a folder with {expected}, got {root}: no such folder.")
    return folder


def files_below(folder: Path) -> list[Path]:
    """All files below a folder in order of their paths, without hidden files and folders."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda path: path.as_posix())


def read_text(path: Path, what: str) -> str:
    """A UTF-8 text file, with or without byte-order mark.

    Raises:
      DataError: it cannot be read.
    """
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: Expected {what}: {error}") from error
