"""Pictures side by side: the panel of one attribution, and galleries of several rows.

Everything is laid out by `grid`; captions use the font that ships inside Pillow where it has all
letters (`fonts`).
"""

from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from dmbp_jax.checks import check_count
from dmbp_jax.errors import InputError
from dmbp_jax.pictures.fonts import find_font
from dmbp_jax.pictures.maps import check_map, diverging, shared_scale
from dmbp_jax.pictures.overlays import check_picture

GAP = 8  # white pixels around every picture
CAPTION = 22  # height of a line of text above a row of pictures
TITLE = 30  # height of the title line
SMALLEST_TILE = 192  # a panel enlarges smaller images, so that single pixels show


def panel(
    image: Any,
    positive: ArrayLike | None,
    negative: ArrayLike | None,
    map: ArrayLike,
    *,
    title: str = "",
    vmax: float | None = None,
    scale: int | None = None,
) -> Image.Image:
    """Image, positive part, negative part and map side by side, the maps on one scale.

    Args:
      image: the network's crop before normalisation (see `overlay`).
      positive: (H, W) or (H, W, C), `Attribution.positive`; None leaves the tile out.
      negative: (H, W) or (H, W, C), `Attribution.negative`; None leaves the tile out.
      map: (H, W) or (H, W, C), `Attribution.map`.
      title: a line above, shortened to the width.
      vmax: scale of the three maps; None takes `shared_scale` of the three.
      scale: whole number by which every pixel is enlarged; None takes the smallest that makes
        the longer side at least 192 pixels.

    Returns:
      RGB picture, `tiles * (scale * W + 8) + 8` wide and `scale * H + 38` high, 30 more with a
      title; there are four tiles, or fewer without the parts.

    Raises:
      InputError: see `overlay` and `diverging`; scale below 1.

    Example:
      >>> import numpy as np
      >>> from dmbp_jax.pictures import panel
      >>> part = np.zeros((64, 64, 3))
      >>> panel(np.zeros((64, 64, 3), np.uint8), part, part, part, title="circle").size
      (808, 260)
    """
    picture = check_picture(image)
    maps = {"positive": positive, "negative": negative, "map": map}
    heats = {name: check_map(m, name, picture=picture) for name, m in maps.items() if m is not None}
    scale = -(-SMALLEST_TILE // max(picture.size)) if scale is None else scale
    shared = shared_scale(heats.values()) if vmax is None else vmax
    tiles = [picture, *(diverging(heat, vmax=shared) for heat in heats.values())]
    captions = ["image", *heats]
    captions[-1] += f", full colour at {shared:.3g}"
    return grid([tiles], captions=captions, title=title, scale=scale)


def grid(
    rows: Sequence[Sequence[Image.Image]],
    *,
    captions: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    title: str = "",
    scale: int = 1,
) -> Image.Image:
    """Pictures in rows and columns on white, with captions that are shortened where too long.

    Args:
      rows: rows of pictures; each centred in its cell, which is as wide as the widest picture
        of the column and as high as the highest of the row. Rows may be shorter than others.
      captions: one line above each column.
      row_titles: one line above each row.
      title: one line above everything.
      scale: whole number by which every pixel of the pictures is enlarged.

    Returns:
      RGB picture; width `sum(columns) + 8 * (number of columns + 1)`, height
      `8 + sum(rows) + 8 * number of rows`, plus 22 for captions, 22 for each row title and 30
      for the title.

    Raises:
      InputError: no picture, more captions than columns, another number of row titles than
        rows, or scale below 1.
      InputTypeError: scale is no int.

    Example:
      >>> from PIL import Image
      >>> from dmbp_jax.pictures import grid
      >>> tile = Image.new("RGB", (100, 50))
      >>> grid([[tile, tile], [tile, tile]], captions=["before", "after"]).size
      (224, 146)
    """
    columns = max((len(row) for row in rows), default=0)
    if not columns:
        raise InputError("rows: Expected at least one picture, got none.")
    if len(captions) > columns:
        raise InputError(f"captions: Expected at most {columns}, got {len(captions)}.")
    if row_titles and len(row_titles) != len(rows):
        raise InputError(f"row_titles: Expected {len(rows)}, one per row, got {len(row_titles)}.")
    check_count(scale, "scale")

    widths = [scale * max(row[i].width for row in rows if i < len(row)) for i in range(columns)]
    heights = [scale * max((tile.height for tile in row), default=0) for row in rows]
    width = sum(widths) + GAP * (columns + 1)
    height = GAP + sum(heights) + GAP * len(rows)
    height += TITLE * bool(title) + CAPTION * bool(captions) + CAPTION * len(row_titles)
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    lefts = [GAP + sum(widths[:i]) + GAP * i for i in range(columns)]

    top = GAP
    if title:
        _write(draw, (GAP, top), title, width - 2 * GAP, size=18)
        top += TITLE
    for left, room, caption in zip(lefts, widths, captions, strict=False):
        _write(draw, (left, top), caption, room, size=14)
    top += CAPTION * bool(captions)
    for i, row in enumerate(rows):
        if row_titles:
            _write(draw, (GAP, top), row_titles[i], width - 2 * GAP, size=14)
            top += CAPTION
        for left, room, tile in zip(lefts, widths, row, strict=False):
            size = (scale * tile.width, scale * tile.height)
            enlarged = tile.convert("RGB").resize(size, Image.Resampling.NEAREST)
            corner = (left + (room - size[0]) // 2, top + (heights[i] - size[1]) // 2)
            canvas.paste(enlarged, corner)
        top += heights[i] + GAP
    return canvas


def _write(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, room: int, size: int
) -> None:
    """One line of black text, cut with an ellipsis where wider than `room`."""
    usual: Any = ImageFont.load_default(size)  # of a size, always a FreeTypeFont
    text = " ".join(text.split())[:room]  # no letter is narrower than a pixel
    path, line = find_font(text, usual)
    font = usual if path is None else ImageFont.truetype(path, size)
    shown = line
    while shown and draw.textlength(shown, font=font) > room:
        line = line[:-1]
        shown = f"{line.rstrip()}..." if line else ""
    draw.text(corner, shown, fill="black", font=font)
