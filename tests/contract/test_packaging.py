"""Packaging: nothing is missing from the wheel, every public name exists, importing stays light."""

import os
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

import dmbp_jax

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
FOLDERS = {"dmbp_jax": "dmbp_jax", "models": "dmbp_jax.models", "convert": "dmbp_jax.convert"}


def packages_on_disk() -> set[str]:
    """Every folder with Python files below the three roots, by the name it is imported by."""
    names = set()
    for folder, package in FOLDERS.items():
        for source in (ROOT / folder).rglob("*.py"):
            inside = source.parent.relative_to(ROOT / folder).parts
            names.add(".".join((package, *inside)))
    return names


def test_packages_are_the_folders_on_disk():
    assert set(SETUPTOOLS["packages"]) == packages_on_disk()
    assert len(SETUPTOOLS["packages"]) == len(set(SETUPTOOLS["packages"]))


def test_every_package_has_an_init():
    for folder in FOLDERS:
        for source in (ROOT / folder).rglob("*.py"):
            assert (source.parent / "__init__.py").exists(), source


def test_every_data_file_is_in_the_wheel():
    patterns = SETUPTOOLS["package-data"]["*"]
    ignored = {".py", ".pyc"}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix not in ignored:
                assert any(path.match(pattern) for pattern in patterns), path


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("dmbp_jax", "py.typed"),
        ("dmbp_jax.networks", "imagenet.txt"),
        ("dmbp_jax.networks", "voc.txt"),
        ("dmbp_jax.networks", "coco.txt"),
        ("dmbp_jax.models", "builtin.safetensors"),
    ],
)
def test_data_files_are_found_where_they_are_installed(package, name):
    assert files(package).joinpath(name).is_file()


def test_every_public_name_resolves():
    for name in dmbp_jax.__all__:
        assert getattr(dmbp_jax, name) is not None
    assert dir(dmbp_jax) == sorted(dmbp_jax.__all__)
    with pytest.raises(AttributeError, match="no attribute 'attribut'"):
        dmbp_jax.attribut  # noqa: B018


def test_the_version_is_the_same_everywhere():
    assert PYPROJECT["project"]["version"] == dmbp_jax.__version__
    assert f"\nversion: {dmbp_jax.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"## [{dmbp_jax.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Another interpreter, in an empty folder: what is installed, not what lies around."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONWARNDEFAULTENCODING": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )


HEAVY = "[name for name in ('jax', 'flax', 'optax', 'numpy', 'PIL') if name in sys.modules]"


def test_importing_is_light(tmp_path):
    done = run_python(f"import sys, dmbp_jax; assert not {HEAVY}, {HEAVY}", tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["explain", "--help"], ["--version"]])
def test_the_command_line_parses_before_jax_is_imported(arguments, tmp_path):
    code = f"""
import sys
from dmbp_jax.cli import main
try:
    main({arguments!r})
except SystemExit as end:
    assert end.code == 0
assert not {HEAVY}, {HEAVY}
"""
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "dmbp" in done.stdout


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"]({page.name})" in index, page.name
