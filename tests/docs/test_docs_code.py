"""The Python on the pages that a newcomer types runs, page by page, from top to bottom."""

import codeop
import re
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (
    "first_map",
    "own_network",
    "reading_maps",
    "mathematics",
    "algorithm",
    "methods",
    "metrics",
)
OPTIONAL = ("equinox", "keras")  # a section that imports one is left out where it is absent


def sections(page: str) -> list[str]:
    """The Python of a page, one string for each section."""
    text = (DOCS / f"{page}.md").read_text("utf-8")
    parts = re.split(r"^## ", text, flags=re.M)
    blocks = [re.findall(r"^ *```python\n(.*?)^ *```", part, flags=re.M | re.S) for part in parts]
    return ["\n".join(map(dedent, found)) for found in blocks if found]


def installed(code: str) -> bool:
    """Whether the optional packages that some code imports are there."""
    for name in OPTIONAL:
        if re.search(rf"^import {name}\b", code, flags=re.M):
            try:
                __import__(name)
            except ImportError:
                return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    names = {"__name__": page}
    ran = [code for code in sections(page) if installed(code)]
    for code in ran:
        exec(compile(code, f"{page}.md", "exec"), names)
    assert ran


def typed(code: str) -> None:
    """Compile some code as the prompt does: an empty line ends a class or a function."""
    waiting: list[str] = []
    for line in [*code.split("\n"), ""]:
        waiting.append(line)
        if codeop.compile_command("\n".join(waiting), symbol="single") is not None:
            waiting = []
    assert not "".join(waiting).strip()


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name
)
def test_code_can_be_pasted_at_the_prompt(page):
    """Of Python 3.11 and 3.12, which take a paste line by line."""
    for code in re.findall(r"^ *```python\n(.*?)^ *```", page.read_text("utf-8"), re.M | re.S):
        typed(dedent(code))


def test_what_the_prompt_does_not_take():
    typed("def f(x):\n    return x\n\ny = 1\n")
    with pytest.raises(SyntaxError):
        typed("def f(x):\n    return x\ny = 1\n")
    with pytest.raises(SyntaxError):
        typed("class A:\n    x = 1\n\n    y = 2\n")
