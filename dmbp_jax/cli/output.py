"""Where the commands write: never over a file by accident, into a folder that can be made."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dmbp_jax.errors import InputError
from dmbp_jax.files import replacing

if TYPE_CHECKING:
    from PIL import Image


def refuse_overwrite(files: Sequence[Path], *, force: bool) -> None:
    """Refuse to overwrite files without `force`.

    Raises:
      InputError: a file exists and `force` is false.
    """
    taken = [path for path in files if path.exists()]
    if taken and not force:
        others = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise InputError(f"{taken[0]}{others} would be overwritten; pass --force, or another name.")


def make_folder(folder: Path) -> None:
    """Make the folder of the results, before hours are spent on them.

    Raises:
      InputError: it is a file, or may not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"-o: Expected a folder, got the file {folder}.") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"-o: Expected a folder that can be written to, got {folder}.")


def save_picture(picture: "Image.Image", path: Path) -> None:
    """Write a picture whole or not at all."""
    with replacing(path) as part:
        picture.save(part)
