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
CURVES = (4.5, 2.0)  # least width, and height, of the axes of the curves, inches
LEFT = 0.6  # of the axes, for their labels
SETTINGS = {
    "font.size": 8,
    "svg.hashsalt": "dmbp-jax",  # the same sheet gives the same bytes
    "image.composite_image": False,
}


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

    columns = max(len(row) for row in sheet.rows)
    width, height = columns * (TILE + GAP) + GAP, GAP
    height += sum(TILE + LINE + GAP + (LINE if title else 0) for title in sheet.titles)
    if sheet.curves:
        width, height = max(width, CURVES[0] + LEFT + 2 * GAP), height + CURVES[1] + 3 * LINE
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(width, height))

        def write(left: float, down: float, text: str, **style: Any) -> None:
            _write(figure, left / width, 1 - down / height, text, **style)

        def add_axes(left: float, down: float, wide: float, high: float) -> Any:
            box = (left / width, 1 - (down + high) / height, wide / width, high / height)
            return figure.add_axes(box)

        down = GAP
        for title, row in zip(sheet.titles, sheet.rows, strict=True):
            if title:
                write(GAP, down, title, weight="bold")
                down += LINE
            for column, tile in enumerate(row):
                if tile.picture is not None:
                    left = GAP + column * (TILE + GAP)
                    write(left, down, tile.caption)
                    axes = add_axes(left, down + LINE, TILE, TILE)  # every pixel a square
                    axes.imshow(np.asarray(tile.picture), interpolation="none")
                    axes.set_axis_off()
            down += TILE + LINE + GAP
        if sheet.curves:
            top = height - 2 * LINE - CURVES[1]
            _draw_curves(add_axes(LEFT, top, width - LEFT - 2 * GAP, CURVES[1]), sheet.curves)
        with replacing(path) as part:
            _save(figure, part, path.suffix.removeprefix("."))


def _write(figure: Any, left: float, top: float, text: str, **style: Any) -> None:
    """A line of text as it is, in a font that has its letters."""
    from matplotlib.font_manager import FontProperties, findfont

    path, text = find_font(text, ImageFont.truetype(findfont(FontProperties()), 16))
    if path is not None:
        style["font"] = path
    figure.text(left, top, text, va="top", parse_math=False, **style)


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


def _save(figure: Any, path: Path, format: str) -> None:
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # other formats have none
    figure.savefig(path, format=format, dpi=150, metadata=dates.get(format))
