"""Which rows of a large run a report shows: the ends of every number, and a random sample."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from dmbp_jax.runs.records import FAILED, OK

NUMBERS = {
    "y": "y",
    "y_positive": "y⁺",
    "y_negative": "y⁻",
    "y_nuisance": "ỹ",
    "probability": "probability",
}
_SHARE_OF_ENDS = 0.5  # of the rows shown; the others are a random sample


class Overview(NamedTuple):
    """All rows of a run in columns.

    Attributes:
      numbers: key of `NUMBERS` -> (rows,) float32, NaN where a row has none.
      done: (rows,) bool, rows with a map.
      failures: (file, reason) of the rows that failed, at most `most` of them.
      failed, missing: how many rows failed, and how many are not done.
    """

    numbers: Mapping[str, np.ndarray]
    done: np.ndarray
    failures: tuple[tuple[str, str], ...]
    failed: int
    missing: int


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
    shown = [name for name in ("y", "y_nuisance", "probability") if _known(numbers[name])]
    each = int(most * _SHARE_OF_ENDS) // max(1, 2 * len(shown))
    for name in shown:
        order = done[np.argsort(numbers[name][done], kind="stable")]
        for end, rows in (("smallest", order), ("largest", order[::-1])):
            fresh = (row for row in rows.tolist() if row not in chosen)
            chosen |= {
                row: f"{end} {NUMBERS[name]}" for row, _ in zip(fresh, range(each), strict=False)
            }
    rest = np.array([row for row in done.tolist() if row not in chosen])
    drawn = np.random.default_rng(seed).choice(rest, most - len(chosen), replace=False)
    chosen |= dict.fromkeys(drawn.tolist(), "random")
    return dict(sorted(chosen.items()))


def _known(column: np.ndarray) -> bool:
    return bool(np.isfinite(column).any())
