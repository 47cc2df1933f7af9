"""The Python on the pages that a newcomer types runs, page by page, from top to bottom."""

import re
from pathlib import Path
from textwrap import dedent

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = (
    "first_map",
    "own_network",
    "reading_maps",
    "multi_label",
    "steps_and_precision",
    "comparing_methods",
    "adding_a_method",
    "mathematics",
)
OPTIONAL = ("equinox", "keras")  # a section that imports one is left out where it is absent

pytestmark = pytest.mark.usefixtures("quick_compilation")


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


@pytest.mark.parametrize("page", PAGES)
def test_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    names = {"__name__": page}
    ran = [code for code in sections(page) if installed(code)]
    for code in ran:
        exec(compile(code, f"{page}.md", "exec"), names)
    assert ran
