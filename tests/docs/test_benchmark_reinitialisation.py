"""The benchmark of layer re-initialisation prints one row per method."""

import re

import pytest

from benchmarks.faithfulness import reinitialisation

pytestmark = pytest.mark.slow


def test_rows_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    reinitialisation.main(["--pictures", "2", "--redraws", "2", "--methods", "gradient"])
    head, *table = capsys.readouterr().out.splitlines()
    assert head == "2 pictures, 2 re-drawings, cpu" and len(table) == 3
    row = re.fullmatch(r"\| ND = gradient × input \| (\S+) ± \S+ \| (\S+) ± \S+ \| 0 \|", table[2])
    assert row is not None
    assert all(-1 <= float(value) <= 1 for value in row.groups())
