"""`python -m benchmarks`: its README lists every command, and every one on a page is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import commands

ROOT = Path(__file__).parents[2]
COMMANDS = commands()
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "docs" / "remake",
]


def test_the_readme_lists_every_command_with_its_room() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)/` \| `(\w+)` \| \S.* \|$", text, flags=re.M)
    assert rows == [(command.room, name) for name, command in COMMANDS.items()]


def test_every_command_says_what_it_does() -> None:
    assert all(command.does for command in COMMANDS.values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_pages_are_there(page: Path) -> None:
    text = " ".join(page.read_text("utf-8").split())
    assert "python benchmarks/" not in text
    assert set(re.findall(r"-m benchmarks (\w+)", text)) <= {*COMMANDS, "NAME"}


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
