"""Every example in a docstring, and in the README, runs and says what it shows."""

import doctest
import importlib
import re
import tomllib
from functools import partial
from pathlib import Path
from textwrap import dedent

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from short_methods import slow_beside

import dmbp_jax
from dmbp_jax.data import generate

ROOT = Path(__file__).parents[2]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]


def readme_blocks() -> list[str]:
    """The README's Python, without what needs a download."""
    text = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(r"^(<!-- .* -->\n)?( *)```python\n(.*?)^ *```", text, flags=re.M | re.S)
    return [dedent(body) for mark, _, body in blocks if "download" not in mark]


README = readme_blocks()


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


DEAR = {
    *("experiments.run", "networks.network", "metrics.reinitialisation", "metrics.localisation"),
    *("metrics.curves", "metrics.last_layer", "methods.paths", "methods.random_masks"),
    *("methods.learned_weights", "methods.bias_gradients"),
}


@pytest.mark.parametrize("name", slow_beside(modules(), *(f"dmbp_jax.{name}" for name in DEAR)))
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


@pytest.fixture(scope="module")
def readme(tmp_path_factory):
    """Runs the README's Python up to a block, but for what needs a download.

    It stands beside a picture of `dmbp demo`, and takes three steps in place of 200: what is shown
    is that it runs.
    """
    folder = tmp_path_factory.mktemp("readme")
    (folder / "dmbp-demo").mkdir()
    star = generate(2, 3, classes=("star", "cross"))
    Image.fromarray(star.image).save(folder / "dmbp-demo" / "scene-4.png")
    waiting, names = list(enumerate(README)), {"__name__": "readme"}

    def run(last):
        while waiting and waiting[0][0] <= last:
            exec(compile(waiting.pop(0)[1], "README.md", "exec"), names)
        return folder

    few = partial(dmbp_jax.attribute, config=dmbp_jax.DMBP(steps=3))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(dmbp_jax, "attribute", few)
        yield run


@pytest.mark.parametrize("block", range(len(README)))
def test_the_readme_runs(block, readme):
    readme(block)


def test_the_readme_writes_what_it_says(readme):
    folder = readme(len(README))
    assert (folder / "star.png").exists()
