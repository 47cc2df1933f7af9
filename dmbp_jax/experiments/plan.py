"""What an evaluation has to do: the targets in batches, and every method once.

Made from the settings alone, so that a run that continues makes the same batches.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from dmbp_jax.data.samples import Dataset, Picture, Target, choose_targets
from dmbp_jax.experiments.journal import Key
from dmbp_jax.experiments.rows import TABLES, TableRow
from dmbp_jax.experiments.settings import Settings


class Plan(NamedTuple):
    """Batches of targets, and the rows with the measures of each.

    Attributes:
      batches: targets in their order, in batches of nearly equal size.
      rows: of all tables, each once.
      measures: name of a row -> what is measured on its maps.
      others: the largest number of other labels that a picture has.
    """

    batches: list[tuple[Target, ...]]
    rows: tuple[TableRow, ...]
    measures: Mapping[str, tuple[str, ...]]
    others: int

    @property
    def size(self) -> int:
        """Targets of a batch; the last one may have fewer."""
        return len(self.batches[0]) if self.batches else 0

    @property
    def shown(self) -> str:
        """The row by which the gallery chooses images: DMBP, or else the first."""
        names = [row.name for row in self.rows]
        return "dmbp" if "dmbp" in names else names[0]

    def map_keys(self) -> Iterator[Key]:
        """The maps of the whole evaluation."""
        for batch in self.batches:
            for row in self.rows:
                for target in batch:
                    yield target.picture.name, target.label, row.name

    def missing(self, records: Collection[Key], batch: Sequence[Target]) -> list[TableRow]:
        """The rows that are not recorded for every target of a batch."""
        return [
            row
            for row in self.rows
            if any((t.picture.name, t.label, row.name) not in records for t in batch)
        ]


def make_plan(
    dataset: Dataset, settings: Settings, tables: Mapping[int, Sequence[TableRow]]
) -> Plan:
    """Choose the targets and cut them into batches.

    Args:
      dataset: the pictures to choose from.
      settings: how many targets, and how many at once.
      tables: the rows of each table.
    """
    targets = choose_targets(dataset, settings.per_class(dataset.name), settings.seed)
    if settings.limit is not None and settings.limit < len(targets):
        places = [i * len(targets) // settings.limit for i in range(settings.limit)]
        targets = tuple(targets[i] for i in places)
    count = math.ceil(len(targets) / settings.batch_size)
    size = math.ceil(len(targets) / count) if count else 1
    batches = [targets[first : first + size] for first in range(0, len(targets), size)]
    rows: dict[str, TableRow] = {}
    measures: dict[str, tuple[str, ...]] = {}
    for table, of_table in tables.items():
        for row in of_table:
            rows.setdefault(row.name, row)
            both = (*measures.get(row.name, ()), *TABLES[table].measures)
            measures[row.name] = tuple(dict.fromkeys(both))
    others = max((len(target.others) for target in targets), default=0)
    return Plan(batches, tuple(rows.values()), measures, others)


def pictures_of(targets: Sequence[Target]) -> list[Picture]:
    """The pictures of some targets, each once."""
    return list({target.picture.name: target.picture for target in targets}.values())
