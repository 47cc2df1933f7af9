"""Curves as SVG: the mean score of each method while pixels are inserted."""

from collections.abc import Mapping
from html import escape

import numpy as np

WIDTH, HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 10, 34
_COLOURS = (  # distinguishable in print and for most colour-blind readers
    "#1f77b4",
    "#ff7f0e",
    "#2ca02c",
    "#9467bd",
    "#8c564b",
    "#e377c2",
    "#7f7f7f",
    "#bcbd22",
    "#17becf",
    "#000000",
    "#aec7e8",
    "#98df8a",
    "#c49c94",
)
_OURS = {"dmbp": "#d62728", "dmbp-positive": "#ff9896", "dmbp-positive-negative": "#c5547b"}


def colours(methods: Mapping[str, str]) -> dict[str, str]:
    """A colour for each method (name -> title), the same in every figure of a page."""
    others = [name for name in methods if name not in _OURS]
    return _OURS | {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(others)}


def draw_curves(
    curves: Mapping[str, np.ndarray],
    fractions: np.ndarray,
    titles: Mapping[str, str],
    palette: Mapping[str, str],
    ylabel: str,
) -> str:
    """One SVG figure, with a legend below; a line's name shows when it is pointed at.

    Args:
      curves: method -> (S,) scores in [0, 1].
      fractions: (S,) in [0, 1].
      titles: method -> name to show.
      palette: method -> colour.
      ylabel: what the scores are.
    """
    top = _round_up(max(float(curve.max()) for curve in curves.values()))
    x0, x1, y0, y1 = _LEFT, WIDTH - _RIGHT, HEIGHT - _BOTTOM, _TOP
    parts = []
    for tick in np.linspace(0, 1, 5):
        x, y = x0 + tick * (x1 - x0), y0 + tick * (y1 - y0)
        parts.append(f'<line x1="{x0}" x2="{x1}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_text(x, y0 + 14, f"{tick:g}", "middle"))
        parts.append(_text(x0 - 5, y + 4, f"{tick * top:.3g}", "end"))
    parts.append(_text((x0 + x1) / 2, HEIGHT - 4, "share of pixels inserted", "middle"))
    middle = (y0 + y1) / 2
    parts.append(
        f'<text x="10" y="{middle}" transform="rotate(-90 10 {middle})" text-anchor="middle">'
        f"{escape(ylabel)}</text>"
    )
    for name, curve in curves.items():
        points = " ".join(
            f"{x0 + f * (x1 - x0):.1f},{y0 + s / top * (y1 - y0):.1f}"
            for f, s in zip(fractions, curve, strict=True)
        )
        width = 2.6 if name == "dmbp" else 1.4
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{palette[name]}" '
            f'stroke-width="{width}"><title>{escape(titles[name])}</title></polyline>'
        )
    legend = "".join(
        f'<span><b style="background:{palette[name]}"></b>{escape(titles[name])}</span>'
        for name in curves
    )
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{escape(ylabel)}">{"".join(parts)}</svg>'
        f'<figcaption class="legend">{legend}</figcaption></figure>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _round_up(value: float) -> float:
    """The next of 0.1, 0.2, ... 1; scores are probabilities."""
    return min(1.0, max(0.1, np.ceil(value * 10 - 1e-9) / 10))
