"""A font that has the letters of a text: the usual one, or one of the system; never empty boxes."""

import os
import re
import unicodedata
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from PIL import ImageFont

_NOWHERE = "\U0010ffff"  # no character, so that what is drawn for it is the sign of a missing one
_STYLED = re.compile("bold|italic|oblique|light|thin|black|mono", re.IGNORECASE)  # tried last
_FOLDERS = (  # besides those of XDG_DATA_DIRS
    "~/.local/share/fonts",
    "~/.fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "~/Library/Fonts",
    "$WINDIR/Fonts",
    "$LOCALAPPDATA/Microsoft/Windows/Fonts",
)


def find_font(text: str, usual: ImageFont.FreeTypeFont) -> tuple[Path | None, str]:
    r"""The font for a text, and the text as that font draws it.

    None stands for the usual font, which is taken if it has all letters; otherwise it is the file
    of a font of the system. Letters that neither has are written as ASCII does: without accents,
    or as `\u732b`.
    """
    needed = "".join(sorted({letter for letter in text if not letter.isspace()}))
    if _has(usual, needed):
        return None, text
    path = _search(needed)
    if path is not None:
        return path, text
    return None, "".join(
        letter if letter.isspace() or _has(usual, letter) else _in_ascii(letter) for letter in text
    )


def _has(font: ImageFont.FreeTypeFont, letters: str) -> bool:
    """Whether none of the letters is drawn as a missing one, or as nothing."""
    missing = _drawn(font, _NOWHERE)
    return all(_drawn(font, letter) not in (b"", missing) for letter in letters)


def _drawn(font: ImageFont.FreeTypeFont, letter: str) -> bytes:
    mask: Any = font.getmask(letter)
    return bytes(mask)


def _in_ascii(letter: str) -> str:
    plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return plain or letter.encode("ascii", "backslashreplace").decode()


@lru_cache(64)
def _search(letters: str) -> Path | None:
    """The first font of the system that has all letters."""
    for path in _system_fonts():
        try:
            if _has(ImageFont.truetype(path, 16), letters):
                return path
        except (OSError, ValueError):  # not a font after all
            continue
    return None


@cache
def _system_fonts() -> tuple[Path, ...]:
    """Files of fonts, plain ones first."""
    found = (
        Path(parent, name)
        for folder in _folders()
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith((".ttf", ".otf", ".ttc"))
    )
    return tuple(sorted(found, key=lambda path: (bool(_STYLED.search(path.stem)), path)))


def _folders() -> list[str]:
    """Where systems keep their fonts; the folders of other systems are not there."""
    data = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    folders = *(f"{folder}/fonts" for folder in data.split(":")), *_FOLDERS
    return [os.path.expanduser(os.path.expandvars(folder)) for folder in folders]
