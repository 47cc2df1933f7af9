"""Every public name is documented, or the build warns (and `sphinx-build -W` fails)."""

from collections.abc import Iterator
from importlib import import_module
from inspect import isclass, isfunction

from sphinx.application import Sphinx
from sphinx.util import logging

PACKAGES = (
    "convert",
    "data",
    "errors",
    "experiments",
    "methods",
    "metrics",
    "models",
    "pictures",
    "runs",
)
VALUES = ("METHODS", "TABLES", "CLASSES", "ROWS", "CATALOGUE")  # public constants


def public_names() -> Iterator[str]:
    """Full names of what users may import: functions, classes and constants."""
    root = import_module("dmbp_jax")
    for name in root.__all__:
        if name not in PACKAGES:
            yield f"dmbp_jax.{name}"
    for package in PACKAGES:
        module = import_module(f"dmbp_jax.{package}")
        for name in getattr(module, "__all__", None) or exported(module):
            yield f"dmbp_jax.{package}.{name}"


def exported(module: object) -> list[str]:
    """Names without an underscore that lead to a function, a class or a public constant."""
    names = set(vars(module)) | set(getattr(module, "_HOME", ())) | set(dir(module))
    return sorted(
        name
        for name in names
        if not name.startswith("_")
        and (name in VALUES or isclass(value := getattr(module, name)) or isfunction(value))
        and (name in VALUES or value.__module__.startswith("dmbp_jax"))
    )


def check(app: Sphinx, env: object) -> None:
    """Warn of every public name that no page documents."""
    documented = set(app.env.domaindata["py"]["objects"])
    for name in public_names():
        if name not in documented:
            logging.getLogger(__name__).warning("%s is public and not documented", name)


def setup(app: Sphinx) -> dict[str, bool]:
    """After all pages have been read."""
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
