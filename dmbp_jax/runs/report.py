"""A large run as one HTML page that needs no other file and no network.

It shows the ends of every number, and a random sample.
"""

import io
import json
import os
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dmbp_jax.checks import check_count
from dmbp_jax.data.decoding import read_image
from dmbp_jax.errors import ImageError, InputError
from dmbp_jax.files import replacing
from dmbp_jax.networks.preprocessing import Preprocessing
from dmbp_jax.pictures import diverging
from dmbp_jax.pictures.pages import embed, fill_page, table
from dmbp_jax.runs.reader import Run
from dmbp_jax.runs.records import FAILED, OK

SIZE = 96  # pixels, of the pictures on the page
_QUALITY = 55  # of WebP; picture and map of one row take about 3.4 kB
_BINS = 40
NUMBERS = {
    "y": "y",
    "y_positive": "y⁺",
    "y_negative": "y⁻",
    "y_nuisance": "ỹ",
    "probability": "probability",
}


def write_report(
    run: Run,
    path: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    most: int = 2000,
) -> Path:
    """Write the page of a run, finished or not.

    Histograms and failures are of all rows; pictures with their maps of at most `most`: the
    smallest and largest y, ỹ and probability, and a random sample.

    Args:
      run: `dmbp_jax.runs.open(...)`.
      path: of the page.
      images: folder of the pictures; None is where they were when the run was made. A picture
        that is no longer there, or has changed, is shown as its map alone.
      most: rows that are shown, at least 1.

    Raises:
      StoreError: the store cannot be read.
      InputError: `most` below 1, or `images` is no folder.
    """
    check_count(most, "most")
    if images is not None and not Path(images).is_dir():
        raise InputError(f"images: Expected a folder, got {images}: no such folder.")
    overview = survey(run.rows, len(run))
    chosen = choose(overview.numbers, overview.done, most)
    root = run.root if images is None else Path(images)
    cards = [_card(run, row, why, root) for row, why in chosen.items()]
    parts = {
        "TITLE": escape(f"{run.configuration['method']} on {run.configuration['network']}"),
        "SUMMARY": f"{len(run):,} rows, {len(run) - overview.missing:,} done; "
        f"{overview.failed:,} failed; {len(cards):,} shown below.",
        "HISTOGRAMS": "".join(
            histogram(title, overview.numbers[name]) for name, title in NUMBERS.items()
        ),
        "FAILURES": _failures(overview),
        "SETTINGS": table((name, json.dumps(value)) for name, value in run.configuration.items()),
        # A "</script>" inside a file name must not end the data.
        "CARDS": json.dumps(cards, separators=(",", ":")).replace("</", "<\\/"),
    }
    page = fill_page("dmbp_jax.runs", "report.html", parts)
    with replacing(Path(path)) as part:
        part.write_text(page, "utf-8", errors="backslashreplace")  # any name of a picture
    return Path(path)


class Overview(NamedTuple):
    """All rows of a run in columns."""

    numbers: Mapping[str, np.ndarray]  # key of `NUMBERS` -> (rows,) float32, NaN where absent
    done: np.ndarray  # (rows,) bool, rows with a map
    failures: tuple[tuple[str, str], ...]  # (file, reason) of the first rows that failed
    failed: int  # rows
    missing: int  # rows that are not done


def survey(rows: Iterable[Mapping[str, Any]], count: int, most: int = 1000) -> Overview:
    """Read all rows once, in order; a million rows are 20 MB."""
    numbers = {name: np.full(count, np.nan, np.float32) for name in NUMBERS}
    with_map = np.zeros(count, bool)
    failures: list[tuple[str, str]] = []
    failed = missing = 0
    for i, row in enumerate(rows):
        if row["status"] == OK:
            with_map[i] = True
            for name, column in numbers.items():
                if row[name] is not None:
                    column[i] = row[name]
        elif row["status"] == FAILED:
            failed += 1
            if len(failures) < most:
                failures.append((row["file"], row["error"]))
        else:
            missing += 1
    return Overview(numbers, with_map, tuple(failures), failed, missing)


def choose(
    numbers: Mapping[str, np.ndarray], with_map: np.ndarray, most: int, seed: int = 0
) -> dict[int, str]:
    """At most `most` of the rows with a map, in order, each with the reason why it is shown.

    Half of them are the smallest and largest of y, ỹ and the probability in equal shares; the
    others are drawn at random from the rest, the same for the same seed. Maps of another tool may
    have no numbers; all are then drawn.
    """
    done = np.flatnonzero(with_map)
    if len(done) <= most:
        return dict.fromkeys(done.tolist(), "all")
    chosen: dict[int, str] = {}
    ends = ("y", "y_nuisance", "probability")
    shown = [name for name in ends if np.isfinite(numbers[name]).any()]
    each = most // 2 // max(1, 2 * len(shown))
    for name in shown:
        order = done[np.argsort(numbers[name][done], kind="stable")]
        for end, rows in (("smallest", order), ("largest", order[::-1])):
            fresh = [row for row in rows.tolist() if row not in chosen]
            chosen |= dict.fromkeys(fresh[:each], f"{end} {NUMBERS[name]}")
    rest = np.array([row for row in done.tolist() if row not in chosen])
    drawn = np.random.default_rng(seed).choice(rest, most - len(chosen), replace=False)
    chosen |= dict.fromkeys(drawn.tolist(), "random")
    return dict(sorted(chosen.items()))


def _card(run: Run, row: int, why: str, root: Path) -> dict[str, Any]:
    """What the page knows of one row."""
    values = run.rows[row]
    label = values["label"]
    return {name: values[name] for name in ("file", *NUMBERS)} | {
        "class": run.labels[label] if label < len(run.labels) else f"class {label}",
        "why": why,
        "picture": _picture(run, root / values["file"], values["sha256"]),
        "map": _webp(diverging(run.heatmap(row))),
    }


def _picture(run: Run, path: Path, digest: str | None) -> str | None:
    """The picture as the network saw it, or None if it is gone or another one now."""
    try:
        picture, found = read_image(path)
    except ImageError:
        return None
    if digest not in (None, found):
        return None
    return _webp(Preprocessing(**run.configuration["preprocessing"]).crop(picture))


def _webp(picture: Image.Image) -> str:
    """A data URL of the picture in the page's size."""
    data = io.BytesIO()
    picture.resize((SIZE, SIZE), Image.Resampling.BOX).save(data, "WEBP", quality=_QUALITY)
    return embed(data.getvalue(), "webp")


def histogram(title: str, values: np.ndarray) -> str:
    """An SVG of how the finite values are spread, "" without any; outliers go into the end bins."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return ""
    low, high = np.percentile(finite, [0.1, 99.9])
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(np.clip(finite, low, high), _BINS, (low, high))
    bars = "".join(
        f'<rect x="{7 * i}" y="{80 - height:.1f}" width="6" height="{height:.1f}">'
        f"<title>{start:.4g} to {end:.4g}: {count:,} rows</title></rect>"
        for i, (count, start, end, height) in enumerate(
            zip(counts, edges[:-1], edges[1:], 80 * counts / counts.max(), strict=True)
        )
    )
    mean = float(finite.mean(dtype=np.float64))
    return (
        f'<figure class="histogram"><svg viewBox="0 0 {7 * _BINS} 96" role="img" '
        f'aria-label="histogram of {escape(title)}">{bars}'
        f'<text x="0" y="94">{low:.4g}</text>'
        f'<text x="{7 * _BINS}" y="94" text-anchor="end">{high:.4g}</text></svg>'
        f"<figcaption>{escape(title)}: mean {mean:.4g}, "
        f"{finite.size:,} rows</figcaption></figure>"
    )


def _failures(overview: Overview) -> str:
    if not overview.failed:
        return "<p>No row failed.</p>"
    more = overview.failed - len(overview.failures)
    rest = f"<p>{more:,} more are in the rows of the store.</p>" if more else ""
    return table(overview.failures) + rest
