"""A figure of the paper drawn with matplotlib: tiles, captions and curves on one sheet.

In SVG and PDF, lines and text stay lines and text, and pixels are stored once, not enlarged.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFont

from dmbp_jax.errors import MissingPackageError
from dmbp_jax.files import replacing
from dmbp_jax.pictures.fonts import find_font

TILE, GAP, LINE = 1.7, 0.1, 0.22  # inches
CURVES = (4.5, 2.5)  # least width, and height, of the curves, inches
SETTINGS = {
    "font.size": 8,
    "axes.titlesize": 8,  # of captions
    "figure.titlesize": 8,  # of the titles of rows
    "figure.constrained_layout.w_pad": GAP / 2,
    "figure.constrained_layout.h_pad": GAP / 2,
    "svg.hashsalt": "dmbp-jax",  # the same sheet gives the same bytes
    "image.composite_image": False,
}
_NO_DATES = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # other formats have none


class Tile(NamedTuple):
    """A picture with a line of text above; None leaves its place empty."""

    picture: Image.Image | None
    caption: str = ""


class Curves(NamedTuple):
    """Scores by share of inserted pixels, name by name, and the shares that are marked."""

    fractions: np.ndarray
    scores: Mapping[str, np.ndarray]
    marked: tuple[float, ...]


class Sheet(NamedTuple):
    """A figure: rows of tiles with their titles, and curves below."""

    rows: tuple[tuple[Tile, ...], ...]
    titles: tuple[str, ...]
    curves: Curves | None = None


def check_matplotlib() -> None:
    """Say how to get matplotlib where it is absent, before anything is computed."""
    if find_spec("matplotlib") is None:
        raise MissingPackageError(
            "figures: Expected matplotlib to be installed: pip install 'dmbp-jax[figures]'."
        )


def save_sheet(sheet: Sheet, path: Path) -> None:
    """Draw a sheet; the suffix of the file is its format. Whole or not at all."""
    check_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    columns = max(map(len, sheet.rows))
    heights = [GAP + TILE + LINE * (2 if title else 1) for title in sheet.titles]
    width = GAP + columns * (GAP + TILE)
    if sheet.curves:
        width, heights = max(width, CURVES[0]), [*heights, CURVES[1]]
    kind = path.suffix.removeprefix(".")
    with matplotlib.rc_context(SETTINGS):
        figure = Figure((width, sum(heights)), dpi=150, layout="constrained")
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, title, row in zip(parts, sheet.titles, sheet.rows, strict=False):
            if title:
                text, style = _in_letters(title)
                part.suptitle(text, x=GAP / 2 / width, ha="left", weight="bold", **style)
            for axes, tile in zip(part.subplots(1, columns, squeeze=False)[0], row, strict=False):
                if tile.picture is not None:
                    text, style = _in_letters(tile.caption)
                    axes.set_title(text, loc="left", **style)
                    axes.imshow(np.asarray(tile.picture), interpolation="none")
            for axes in part.axes:
                axes.set_axis_off()
        if sheet.curves:
            _draw_curves(parts[-1].subplots(), sheet.curves)
        with replacing(path) as file:
            figure.savefig(file, format=kind, metadata=_NO_DATES.get(kind))


def _in_letters(text: str) -> tuple[str, dict[str, Any]]:
    """A line of text as it is, in a font that has its letters."""
    from matplotlib.font_manager import FontProperties, findfont

    path, text = find_font(text, ImageFont.truetype(findfont(FontProperties()), 16))
    return text, {"parse_math": False} | ({} if path is None else {"font": path})


def _draw_curves(axes: Any, curves: Curves) -> None:
    """One line for each name; the shares whose pictures are shown are marked on the first."""
    for i, (name, scores) in enumerate(curves.scores.items()):
        axes.plot(curves.fractions, scores, color=("#d62728", "#7f7f7f")[i % 2], label=name)
        if i == 0:
            marked = np.interp(curves.marked, curves.fractions, scores)
            axes.plot(curves.marked, marked, "o", color="#d62728", markersize=4)
    axes.set(xlim=(0, 1), ylim=(0, None), xlabel="share of the pixels inserted")
    axes.set_ylabel("probability of the label")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
