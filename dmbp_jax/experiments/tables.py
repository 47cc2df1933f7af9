"""From records to the paper's tables: mean, standard error and number of images, as text and CSV.

The score of an image is the mean over its targets; images, not targets, are what is averaged.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np

from dmbp_jax.data.samples import Skipped
from dmbp_jax.experiments.paper import DASH, paper_value
from dmbp_jax.experiments.results import Record
from dmbp_jax.experiments.rows import TABLES, TableRow


class Measure(NamedTuple):
    """A column: its title, what it is in words, a shorter title, whether the paper has it."""

    title: str
    note: str
    short: str = ""
    in_paper: bool = False


MEASURES = {
    "im": Measure(
        "IM",
        "IM (insertion metric): mean probability of the target while pixels are inserted into "
        "the blurred image, largest attribution first; higher is better.",
        "IM",
        in_paper=True,
    ),
    "cim": Measure(
        "cIM",
        "cIM (complementary insertion metric): mean probability of the image's other labels "
        "while pixels are inserted, smallest attribution first; higher is better. Images with one "
        "label have none.",
        "cIM",
        in_paper=True,
    ),
    "avg": Measure(
        "Avg",
        "Avg: mean of IM and cIM, as in the last row of the paper's Table 2, there over four "
        "networks. The paper's value is computed from its two numbers for this network.",
        in_paper=True,
    ),
    "rank": Measure(
        "rank correlation",
        "Rank correlation: Spearman's, of a signed map with that of a network whose last layer "
        "is re-drawn; mean over the re-drawings, then over images. Near 0 is better.",
        "ρ",
        in_paper=True,
    ),
    "rank_absolute": Measure(
        "absolute rank correlation",
        "Absolute rank correlation: the same of |map|. Where it is far "
        "above the signed one, signs change with the last layer while places largely stay.",
        "ρ of |map|",
    ),
    "pointing": Measure(
        "pointing game",
        "Pointing game: how often the highest point of a map is on the target, or nearer "
        "than 15 pixels of 224.",
    ),
    "inside": Measure(
        "inside", "Inside: share of the positive attribution that lies on the target."
    ),
}


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
      mean: over images; NaN without any.
      standard_error: of the mean, from the deviation between images; NaN below two images, and
        of an average of two measures.
      images: number of images for which the measure is defined.
      paper: what the paper reports, or a dash.
    """

    mean: float
    standard_error: float
    images: int
    paper: str = DASH


@dataclass(frozen=True)
class Row:
    """One method: measure -> cell."""

    method: str
    title: str
    cells: dict[str, Cell]


@dataclass(frozen=True)
class ResultTable:
    """One of the paper's tables with our numbers, and the paper's beside them."""

    number: int
    title: str
    rows: tuple[Row, ...]

    @property
    def measures(self) -> tuple[str, ...]:
        """The columns; one that is undefined for every image of every method is left out."""
        named = tuple(self.rows[0].cells)
        used = [m for m in named if any(row.cells[m].images for row in self.rows)]
        return tuple(used) or named

    def cell(self, method: str, measure: str) -> Cell:
        """The number of a method, by name."""
        return next(row for row in self.rows if row.method == method).cells[measure]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
      tables: the paper's tables with our numbers.
      records: what was measured on each map.
      skipped: pictures left out, with the reason of each.
      folder: where `tables.md`, `tables.csv` and `evaluation.html` are.
    """

    tables: tuple[ResultTable, ...]
    records: tuple[Record, ...]
    skipped: tuple[Skipped, ...]
    folder: Path

    def table(self, number: int) -> ResultTable:
        """Table 1, 2 or 3."""
        return next(table for table in self.tables if table.number == number)

    def __str__(self) -> str:
        """The tables as aligned Markdown."""
        return "\n".join(map(as_text, self.tables))


def average(records: Iterable[Record], measure: str, paper: str = DASH) -> Cell:
    """Mean over images of the mean over each image's targets; undefined values are left out."""
    known = [record for record in records if not math.isnan(record.values.get(measure, math.nan))]
    scores = [fmean(one.values[measure] for one in own) for own in _by_picture(known)]
    if not scores:
        return Cell(math.nan, math.nan, 0, paper)
    error = stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else math.nan
    return Cell(fmean(scores), error, len(scores), paper)


def _by_picture(records: Iterable[Record]) -> Iterable[list[Record]]:
    """The records of each image."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.picture, []).append(record)
    return found.values()


def make_tables(
    records: Sequence[Record],
    rows: Mapping[int, Sequence[TableRow]],
    title: str,
    dataset: str,
    published: str | None,
) -> tuple[ResultTable, ...]:
    """The chosen tables, table -> its rows, from the records of all their methods.

    The paper's numbers for `dataset` are those of `published`, the name of the network if its
    weights are the published ones; `title` follows the title of each table.
    """
    by_method: dict[str, list[Record]] = {}
    for record in records:
        by_method.setdefault(record.method, []).append(record)
    localised = any(not math.isnan(one.values.get("inside", math.nan)) for one in records)
    tables = []
    for number, of_table in rows.items():
        made = []
        for row in of_table:
            own = by_method.get(row.name, ())
            papers = {
                measure: paper_value(number, measure, row.name, dataset, published)
                for measure in MEASURES
            }
            cells = {m: average(own, m, papers[m]) for m in TABLES[number].measures}
            if number < 3:
                # The paper's Avg is the mean of IM and cIM; undefined unless both are defined.
                images = min(cell.images for cell in cells.values())
                mean = fmean(cell.mean for cell in cells.values()) if images else math.nan
                cells["avg"] = Cell(mean, math.nan, images, papers["avg"])
                cells |= {m: average(own, m) for m in ("pointing", "inside") if localised}
            made.append(Row(row.name, row.title or row.name, cells))
        tables.append(ResultTable(number, f"{TABLES[number].title}; {title}", tuple(made)))
    return tuple(tables)


def mean_curve(records: Iterable[Record], method: str, measure: str) -> np.ndarray:
    """(S,) mean over images of the curve of one method; empty where no image has one."""
    known = [one for one in records if one.method == method and len(one.curves.get(measure, ()))]
    curves = [np.mean([one.curves[measure] for one in own], axis=0) for own in _by_picture(known)]
    return np.mean(curves, axis=0) if curves else np.zeros(0)


def header(measures: Sequence[str]) -> list[str]:
    """Titles of the columns of a table with these measures."""
    titles = ["method"]
    for name in measures:
        titles += [MEASURES[name].title]
        titles += ["± s.e.", "images"] if name != "avg" else []
        titles += ["paper"] if MEASURES[name].in_paper else []
    return titles


def cells(row: Row, measures: Sequence[str]) -> list[str]:
    """A row as text, in the columns of `header`."""
    texts = [row.title]
    for name in measures:
        cell = row.cells[name]
        texts += [number(cell.mean)]
        texts += [number(cell.standard_error), str(cell.images)] if name != "avg" else []
        texts += [cell.paper] if MEASURES[name].in_paper else []
    return texts


def number(value: float) -> str:
    """Three decimals, or a dash where undefined."""
    return DASH if math.isnan(value) else f"{value:.3f}"


def as_text(table: ResultTable) -> str:
    """The table as aligned Markdown, which reads well as plain text too."""
    measures = table.measures
    lines = [header(measures), *(cells(row, measures) for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    rows = [
        [line[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(line[1:], widths[1:], strict=True))]
        for line in [lines[0], rule, *lines[1:]]
    ]
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"Table {table.number}: {table.title}\n\n{body}\n"


def as_csv(tables: Iterable[ResultTable]) -> str:
    """All tables, a line for each number: full precision, empty where undefined."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["table", "method", "measure", "mean", "standard_error", "images", "paper"])
    for table in tables:
        for row in table.rows:
            for measure, cell in row.cells.items():
                numbers = [
                    "" if math.isnan(v) else repr(v) for v in (cell.mean, cell.standard_error)
                ]
                paper = "" if cell.paper == DASH else cell.paper
                writer.writerow([table.number, row.method, measure, *numbers, cell.images, paper])
    return stream.getvalue()
