"""What an evaluation leaves for readers: the tables as text and CSV, the page, the skipped list."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dmbp_jax.data.samples import Skipped
from dmbp_jax.experiments.folder import CSV, PAGE, SKIPPED, TEXT, ResultFolder
from dmbp_jax.experiments.journal import Record
from dmbp_jax.experiments.page import PageContent, make_page
from dmbp_jax.experiments.tables import ResultTable, as_csv, as_text


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


def write_outputs(folder: ResultFolder, content: PageContent) -> None:
    """Write the files that a reader opens, each whole or not at all."""
    folder.write_text(TEXT, "\n".join(map(as_text, content.tables)))
    folder.write_text(CSV, as_csv(content.tables))
    folder.write_text(SKIPPED, list_skipped(content.skipped))
    folder.write_text(PAGE, make_page(folder, content))


def list_skipped(skipped: Sequence[Skipped]) -> str:
    """A line for each picture that was left out."""
    return "".join(f"{picture.name}: {picture.reason}\n" for picture in skipped)
