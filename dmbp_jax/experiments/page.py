"""The result as one HTML page that needs no other file, no network and no script.

Its small pictures of the best and the worst maps are written while the maps exist.
"""

import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from dmbp_jax.data.samples import Skipped
from dmbp_jax.experiments.results import PICTURES, Record, ResultFolder
from dmbp_jax.experiments.rows import TableRow
from dmbp_jax.experiments.tables import MEASURES, Evaluation, ResultTable, cells, header, mean_curve
from dmbp_jax.files import replacing
from dmbp_jax.metrics.curves import pixel_counts
from dmbp_jax.pictures import diverging
from dmbp_jax.pictures.pages import embed, fill_page, table

SIDE = 144  # pixels of the longer side of a picture
TargetName = tuple[str, int]  # picture, label
Ends = tuple[list[TargetName], list[TargetName]]  # best first; worst first

_WIDTH, _HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 10, 34
_COLOURS = (  # distinguishable in print and for most colour-blind readers
    "#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f",
    "#bcbd22", "#17becf", "#000000", "#aec7e8", "#98df8a", "#c49c94",
)  # fmt: skip
_OURS = {"dmbp": "#d62728", "dmbp-positive": "#ff9896", "dmbp-positive-negative": "#c5547b"}


def make_page(
    result: Evaluation,
    folder: ResultFolder,
    configuration: Mapping[str, Any],
    classes: Sequence[str],
    shown: str,
    ends: Ends,
) -> str:
    """The page of what a folder holds: tables, curves, the pictures at both ends, the settings.

    The pictures are at the ends by the map of the row `shown`.
    """
    titles = {row.method: row.title for one in result.tables for row in one.rows}
    images = len({record.picture for record in result.records})
    galleries = [
        f"<h2>{text} images of {escape(titles[shown])}</h2>{rows}"
        for text, targets in zip(("Best", "Worst"), ends, strict=True)
        if (rows := "".join(_row(folder, target, titles, classes) for target in targets))
    ]
    parts = {
        "TITLE": escape(f"{configuration['network']} on {configuration['dataset']}"),
        "SUMMARY": f"{images} images, {configuration['targets']} targets chosen, "
        f"{len(result.skipped)} pictures left out.",
        "TABLES": "".join(
            f"<h2>Table {one.number}: {escape(one.title)}</h2>"
            + table([cells(row, one.measures) for row in one.rows], header(one.measures))
            for one in result.tables
        ),
        "NOTES": _notes(result.tables, result.records),
        "CURVES": _curves(result.records, configuration, titles),
        "GALLERY": "".join(galleries),
        "SKIPPED": _skipped(result.skipped),
        "SETTINGS": table((name, _words(value)) for name, value in configuration.items()),
    }
    return fill_page("dmbp_jax.experiments", "page.html", parts)


def _notes(tables: Sequence[ResultTable], records: Sequence[Record]) -> str:
    measures = dict.fromkeys(m for table in tables for m in table.measures)
    notes = [MEASURES[measure].note for measure in measures]
    areas = {(r.picture, r.label): r.values["area"] for r in records if "area" in r.values}
    known = [area for area in areas.values() if not math.isnan(area)]
    if "inside" in measures and known:
        notes.append(
            f"A map that is the same everywhere has inside = {sum(known) / len(known):.3f}, the "
            "mean area of the targets."
        )
    return "".join(f"<li>{escape(note)}</li>" for note in notes)


def _curves(
    records: Sequence[Record], configuration: Mapping[str, Any], titles: Mapping[str, str]
) -> str:
    palette = _colours(titles)
    figures = []
    for measure, ylabel in (
        ("im", "IM: probability of the target"),
        ("cim", "cIM: probability of the other labels"),
    ):
        curves = {name: mean_curve(records, name, measure) for name in titles}
        curves = {name: curve for name, curve in curves.items() if curve.size}
        if curves:
            pixels = records[0].pixels
            counts = pixel_counts(pixels, configuration["step"], configuration["points"])
            figures.append(_draw_curves(curves, counts / pixels, titles, palette, ylabel))
    return f"<h2>Mean curves</h2>{''.join(figures)}" if figures else ""


def _row(
    folder: ResultFolder,
    target: TargetName,
    titles: Mapping[str, str],
    classes: Sequence[str],
) -> str:
    """One target: the picture, and the map of every method with its score."""
    picture, label = target
    named = classes[label] if label < len(classes) else f"class {label}"
    tiles = [_tile(folder, picture_name(target), f"{picture}: {named}")]
    for method, title in titles.items():
        values = folder.records[(picture, label, method)].values
        text = ", ".join(
            f"{measure.short} {values[name]:.3f}"
            for name, measure in MEASURES.items()
            if measure.short and not math.isnan(values.get(name, math.nan))
        )
        tiles.append(_tile(folder, picture_name(target, method), f"{title} {text}"))
    return f'<div class="row">{"".join(tiles)}</div>' if any(tiles) else ""


def _tile(folder: ResultFolder, name: str, caption: str) -> str:
    path = folder.own / name
    if not path.is_file():
        return ""
    source = embed(path.read_bytes(), "png")
    text = escape(caption)
    return f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def _skipped(skipped: Sequence[Skipped]) -> str:
    if not skipped:
        return ""
    items = "".join(f"<li>{escape(s.name)}: {escape(s.reason)}</li>" for s in skipped)
    return f"<h2>Pictures left out</h2><ul>{items}</ul>"


def _words(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return json.dumps(value) if value else "–"
    return "–" if value in (None, "") else str(value)


def _colours(methods: Mapping[str, str]) -> dict[str, str]:
    """A colour for each method (name -> title), the same in every figure of a page."""
    others = [name for name in methods if name not in _OURS]
    return _OURS | {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(others)}


def _draw_curves(
    curves: Mapping[str, np.ndarray],
    fractions: np.ndarray,
    titles: Mapping[str, str],
    palette: Mapping[str, str],
    ylabel: str,
) -> str:
    """One SVG figure, with a legend below; a line's name shows when it is pointed at."""
    highest = max(float(curve.max()) for curve in curves.values())
    top = min(1.0, max(0.1, np.ceil(highest * 10 - 1e-9) / 10))  # the next of 0.1, 0.2, … 1
    x0, x1, y0, y1 = _LEFT, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, _TOP
    parts = []
    for tick in np.linspace(0, 1, 5):
        x, y = x0 + tick * (x1 - x0), y0 + tick * (y1 - y0)
        parts.append(f'<line x1="{x0}" x2="{x1}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_svg_text(x, y0 + 14, f"{tick:g}", "middle"))
        parts.append(_svg_text(x0 - 5, y + 4, f"{tick * top:.3g}", "end"))
    parts.append(_svg_text((x0 + x1) / 2, _HEIGHT - 4, "share of pixels inserted", "middle"))
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
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'role="img" aria-label="{escape(ylabel)}">{"".join(parts)}</svg>'
        f'<figcaption class="legend">{legend}</figcaption></figure>'
    )


def _svg_text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def choose_ends(scores: Mapping[TargetName, float], count: int) -> Ends:
    """The `count` best targets and the `count` worst, each from its end, and none in both."""
    known = (target for target, score in scores.items() if not math.isnan(score))
    order = sorted(known, key=lambda target: (-scores[target], target))
    half = -(-len(order) // 2)
    return order[:half][:count], order[half:][::-1][:count]


def keep_ends(folder: ResultFolder, scores: dict[TargetName, float], count: int) -> Ends:
    """`choose_ends`; the others lose their pictures, and their scores.

    A target that `count` others beat from either side stays beaten, so a batch costs the same
    whatever was measured before it.
    """
    ends = choose_ends(scores, count)
    for target in scores.keys() - {*ends[0], *ends[1]}:
        shutil.rmtree((folder.own / picture_name(target)).parent, ignore_errors=True)
        del scores[target]
    return ends


def picture_name(target: TargetName, row: str | None = None) -> str:
    """File of the map of a row, or of the picture itself, relative to the folder of its own.

    Names of pictures and rows may be no names of files, so these are hashes.
    """
    folder = _hash(f"{target[0]}/{target[1]}")
    return f"{PICTURES}/{folder}/{'picture' if row is None else f'map-{_hash(row)}'}.png"


def _hash(name: str) -> str:
    return sha256(name.encode(errors="surrogateescape")).hexdigest()[:20]


def save_crops(folder: ResultFolder, crops: Mapping[TargetName, Image.Image]) -> None:
    """Write the crop of each target."""
    for target, crop in crops.items():
        _save(crop, folder, picture_name(target))


def save_maps(
    folder: ResultFolder, row: TableRow, targets: Iterable[TargetName], maps: np.ndarray
) -> None:
    """Write a picture of the map of each target (none if there are none), if it is finite."""
    for target, heat in zip(targets, maps, strict=False):
        if np.isfinite(heat).all():
            picture = diverging(heat if row.has_zero else heat - heat.mean())
            small = shrink(picture).quantize(64)  # a quarter of the bytes
            _save(small, folder, picture_name(target, row.name))


def shrink(picture: Image.Image) -> Image.Image:
    """The picture in RGB, its longer side at most `SIDE`."""
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    return small


def _save(picture: Image.Image, folder: ResultFolder, name: str) -> None:
    path = folder.own / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        picture.save(part, "PNG")
