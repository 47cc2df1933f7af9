"""The documentation site: what is public is on a page, and every page is in a list.

`sphinx-build -W` (in `.ci/run`) is the judge; this says sooner, and without Sphinx, what it would.
"""

import importlib.machinery
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dmbp_jax.catalogue import CATALOGUE
from dmbp_jax.cli import COMMANDS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def extension(name: str) -> ModuleType:
    """A Sphinx extension of the documentation."""
    pytest.importorskip("sphinx")
    spec = importlib.util.spec_from_file_location(name, DOCS / "extensions" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_has_its_help_on_the_page():
    page = (DOCS / "command_line.md").read_text("utf-8")
    documented = re.findall(r"\{command-help\} (\w+)", page)
    assert documented == list(COMMANDS)


def test_every_method_has_a_picture_and_a_place():
    page = (DOCS / "methods.md").read_text("utf-8")
    for method in CATALOGUE:
        assert f"pictures/method_{method.name}.png" in page
        assert (DOCS / "pictures" / f"method_{method.name}.png").is_file()


def test_every_page_is_in_one_list_of_pages():
    index = (DOCS / "index.md").read_text("utf-8")
    lists = re.findall(r"```\{toctree\}\n(.*?)```", index, flags=re.S)
    listed = [line for text in lists for line in text.split("\n") if re.fullmatch(r"[\w/]+", line)]
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    notebooks = {f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert pages | notebooks == set(listed)
    assert len(listed) == len(set(listed))


def test_docstrings_are_escaped():
    """What reStructuredText would take for markup, outside of `names`."""
    docstrings = extension("docstrings")
    assert docstrings.escape("|h| of `*args` and x_") == "\\|h\\| of \\ ``*args``\\  and x\\_"
    lines = ["Maps.", "", "    map = g ⊙ |x|", "", "Args:", "  x: `(N,)`"]
    text = "\n".join(docstrings.rewrite(lines))
    assert "::\n\n    map = g ⊙ |x|" in text
    assert "Args:\n  x: \\ ``(N,)``\\ " in text


def test_links_that_leave_the_pages_are_led_on():
    links = extension("repository_links")

    def led(text: str) -> str:
        return links.LINK.sub(links.target, text)

    assert led("[a](../notebooks/quickstart.ipynb)") == "[a](notebooks/quickstart.ipynb)"
    assert led("[a](../CONTRIBUTING.md#x)") == "[a](contributing.md#x)"
    assert led("[a](../dmbp_jax/dmbp/loop.py)").endswith("/main/dmbp_jax/dmbp/loop.py)")
    assert led("[a](speed.md)") == "[a](speed.md)"


def test_a_public_name_without_a_page_is_found():
    names = list(extension("public_names").public_names())
    assert "dmbp_jax.attribute" in names
    assert "dmbp_jax.metrics.insertion" in names
    assert "dmbp_jax.runs.run_local" in names  # imported on first use
    assert not [name for name in names if name.endswith((".Any", ".Callable", ".jax"))]


def test_remade_numbers_are_compared(tmp_path, monkeypatch):
    """`docs/remake`: a table of a page against a printed one, with its tolerance."""
    path = DOCS / "remake"
    loader = importlib.machinery.SourceFileLoader("remake", str(path))
    spec = importlib.util.spec_from_loader("remake", loader)
    assert spec is not None
    remake = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "remake", remake)  # dataclasses look their module up
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(remake)
    monkeypatch.setattr(remake, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text(
        "| name | IM |\n|---|---|\n| **a** | 0.50 ± 0.02 |\n", "utf-8"
    )
    check = remake.Table("page.md", "| name", 0.01, (0, 2))
    printed = "| method | IM | n | error |\n|---|---|---|---|\n| a | {} | 9 | 0.02 |\n"
    assert list(check.differences(printed.format(0.505), tmp_path)) == []
    assert list(check.differences(printed.format(0.52), tmp_path)) == [
        "page.md: a: 0.5 there, 0.52 made"
    ]
    assert list(check.differences("", tmp_path)) == ["page.md: 'a' was not printed"]
