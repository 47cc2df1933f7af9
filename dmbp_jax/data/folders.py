"""Looking into folders: their files, links followed, and which of them are pictures by name."""

import os
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from dmbp_jax.data.decoding import find_formats
from dmbp_jax.data.samples import Skipped
from dmbp_jax.errors import DataError, InputTypeError

HIDDEN = "hidden"


class Listing(NamedTuple):
    """Files below a folder in order of their paths, and what was left out, by name below it."""

    files: list[Path]
    left_out: list[Skipped]

    @property
    def skipped(self) -> list[Skipped]:
        """What was left out and is not hidden."""
        return [one for one in self.left_out if one.reason != HIDDEN]


def check_root(root: str | os.PathLike[str], expected: str) -> Path:
    """The folder of a dataset, or an error that says what is expected in it."""
    if not isinstance(root, (str, os.PathLike)):
        raise InputTypeError(f"root: Expected a path, got {type(root).__name__}.")
    folder = Path(root)
    if not folder.is_dir():
        raise DataError(f"root: Expected a folder with {expected}, got {root}: no such folder.")
    return folder


def list_folder(folder: Path) -> Listing:
    """All files below a folder; links are followed, also to other folders.

    Left out are hidden files and folders, folders that may not be read, and links that lead back
    to a folder that they are in.
    """
    found: list[Path] = []
    left_out: list[Skipped] = []

    def leave_out(path: str, reason: str) -> None:
        left_out.append(Skipped(Path(path).relative_to(folder).as_posix(), reason))

    def unreadable(error: OSError) -> None:
        leave_out(error.filename, f"folder that cannot be read: {error.strerror}")

    above = {str(folder): {_identity(folder)}}  # path of a folder -> itself and all it lies in
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=unreadable):
        inside, own = [], above.pop(parent)
        for name in folders:
            path = os.path.join(parent, name)
            if name.startswith("."):
                leave_out(path, HIDDEN)
            elif (identity := _identity(path)) in own:
                leave_out(path, "link to a folder it lies in")
            else:
                above[path] = own | {identity}
                inside.append(name)
        folders[:] = inside
        for name in names:
            if name.startswith("."):
                leave_out(os.path.join(parent, name), HIDDEN)
            else:
                found.append(Path(parent, name))
    return Listing(sorted(found, key=Path.as_posix), left_out)


def list_pictures(folder: Path) -> Listing:
    """The files below a folder that have the suffix of a picture; the others are left out."""
    suffixes = picture_suffixes()
    pictures, (files, left_out) = [], list_folder(folder)
    for path in files:
        if path.suffix.lower() in suffixes:
            pictures.append(path)
        else:
            suffix = path.suffix.lower()
            reason = f"no picture by its suffix {suffix}" if suffix else "no suffix"
            left_out.append(Skipped(path.relative_to(folder).as_posix(), reason))
    return Listing(pictures, left_out)


def picture_suffixes() -> frozenset[str]:
    """Suffixes, in lower case, of all formats that `open_image` decodes."""
    formats = {*find_formats(), "MPO"}  # several JPEGs in one file, the first of which is read
    known = Image.registered_extensions()
    return frozenset(suffix for suffix, name in known.items() if name in formats)


def _identity(path: str | os.PathLike[str]) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
