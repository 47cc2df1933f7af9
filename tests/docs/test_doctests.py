"""Every example in a docstring, and in the README, runs and says what it shows."""

import doctest
import importlib
import re
import tomllib
from pathlib import Path
from textwrap import dedent

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import dmbp_jax
from dmbp_jax.data import generate

ROOT = Path(__file__).parents[2]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]


def modules() -> list[str]:
    """Every module of the package by its import name; entry points run when imported."""
    names = []
    for package in SETUPTOOLS["packages"]:
        folder = SETUPTOOLS["package-dir"].get(package, package.replace(".", "/"))
        for source in sorted((ROOT / folder).glob("*.py")):
            if source.stem == "__init__":
                names.append(package)
            elif source.stem != "__main__":
                names.append(f"{package}.{source.stem}")
    return names


@pytest.mark.parametrize("name", modules())
def test_examples_run(name, tmp_path, monkeypatch):
    """Anything an example writes goes to a temporary folder."""
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    names = {"dmbp_jax": dmbp_jax, "jax": jax, "jnp": jnp, "np": np}
    failed, _ = doctest.testmod(
        module,
        extraglobs={key: value for key, value in names.items() if not hasattr(module, key)},
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE,
    )
    assert failed == 0


def test_the_call_has_an_example():
    """The loop above would not notice if doctest stopped finding examples."""
    found = doctest.DocTestFinder().find(dmbp_jax.attribute)
    assert any(test.examples for test in found)


def test_the_readme_runs(tmp_path, monkeypatch):
    """All its Python in one go, but for what needs a download, beside a picture of `dmbp demo`."""
    text = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(r"^(<!-- .* -->\n)?( *)```python\n(.*?)^ *```", text, flags=re.M | re.S)
    code = "\n".join(dedent(body) for mark, _, body in blocks if "download" not in mark)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dmbp-demo").mkdir()
    star = generate(2, 3, classes=("star", "cross"))
    Image.fromarray(star.image).save("dmbp-demo/scene-4.png")
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert (tmp_path / "star.npz").exists() and (tmp_path / "star.png").exists()
