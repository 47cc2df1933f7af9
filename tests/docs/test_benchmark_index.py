"""`python -m benchmarks`: its README lists every script, and every command on a page names one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import first_line, scripts

ROOT = Path(__file__).parents[2]
SCRIPTS = scripts()
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "docs" / "remake",
]


def test_the_readme_lists_every_script_with_its_room() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)/` \| `(\w+)` \| \S.* \|$", text, flags=re.M)
    assert rows == [(path.parent.name, name) for name, path in SCRIPTS.items()]


def test_names_are_of_one_script_and_say_what_it_does() -> None:
    files = [path.stem for path in ROOT.glob("benchmarks/*/*.py") if path.stem in SCRIPTS]
    assert sorted(files) == sorted(SCRIPTS)
    assert all(first_line(path) for path in SCRIPTS.values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_pages_name_a_script(page: Path) -> None:
    text = " ".join(page.read_text("utf-8").split())
    assert "python benchmarks/" not in text
    assert set(re.findall(r"-m benchmarks (\w+)", text)) <= {*SCRIPTS, "NAME"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 0, "first_call"),
        (["sped"], 1, "NAME: Expected one of"),
        (["gpu_compile", "--help"], 0, "--hlo"),
    ],
)
def test_the_command(arguments: list[str], code: int, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == code
    assert words in done.stdout + done.stderr
