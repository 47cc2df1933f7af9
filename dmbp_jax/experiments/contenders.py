"""The rows of the paper's tables: every method with its options, ready to be called on a batch."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dmbp_jax.dmbp.config import DMBP
from dmbp_jax.errors import InputError
from dmbp_jax.graph.model import ApplyFn, check_images
from dmbp_jax.methods import METHODS
from dmbp_jax.metrics.heatmaps import fit_heatmap

Options = Mapping[str, Mapping[str, Any]]

_LOSSES = {
    "dmbp-positive": "positive",
    "dmbp-positive-negative": "positive-negative",
    "dmbp": "all",
}
_TITLES = {
    "gradient": "ND = gradient × input",
    "integrated_gradients": "Integrated Gradients",
    "smoothgrad": "SmoothGrad",
    "blur_ig": "Blur IG",
    "deeplift": "DeepLift",
    "guided_backprop": "Guided Backprop",
    "guided_gradcam": "Guided Grad-CAM",
    "gradcam": "Grad-CAM",
    "fullgrad": "FullGrad",
    "rise": "RISE",
    "lpr": "LPR",
    "dmbp-positive": "DMBP, positive",
    "dmbp-positive-negative": "DMBP, positive-negative",
    "dmbp": "DMBP, all",
}
_NOISY = ("smoothgrad", "rise")
_WITHOUT_ZERO = ("rise",)
_CONVENTION = ("params", "x", "label", "apply_fn", "key", "chunk_size", "progress", "config")
NAMES = tuple(_TITLES)


class Table(NamedTuple):
    """One table of the paper: its title, its methods and its measures."""

    title: str
    methods: tuple[str, ...]
    measures: tuple[str, ...]


TABLES: dict[int, Table] = {
    1: Table("what each term of the objective adds", ("gradient", *_LOSSES), ("im", "cim")),
    2: Table("all methods", tuple(METHODS), ("im", "cim")),
    3: Table("rank correlation after the last layer is drawn anew", tuple(METHODS), ("rank",)),
}


@dataclass(frozen=True)
class Contender:
    """A method that takes part.

    Attributes:
      name: unique, in file names and records.
      function: `f(params, x, label, *, apply_fn, **options)` to maps, as in `dmbp_jax.methods`.
      title: in tables.
      options: keyword arguments of `function`.
      noisy: whether the map depends on `key=`. Then images are done one by one, each with a key
        of its own, so that its map does not depend on its batch.
      zero: whether zero means "no evidence"; if not, pictures are drawn around the mean.
    """

    name: str
    function: Callable[..., Any]
    title: str = ""
    options: tuple[tuple[str, Any], ...] = ()
    noisy: bool = False
    zero: bool = True

    def heatmaps(
        self,
        params: Any,
        x: jax.Array,
        label: jax.Array,
        *,
        keys: Sequence[jax.Array],
        apply_fn: ApplyFn | None = None,
    ) -> jax.Array:
        """Signed heat maps (N, H, W) of a batch; `keys` are one for each image."""
        call = partial(self.function, params, apply_fn=apply_fn, **dict(self.options))
        if not self.noisy:
            return fit_heatmap(call(x, label), check_images(x))
        maps = [
            fit_heatmap(call(image, one, key=key), check_images(image))
            for image, one, key in zip(x, label, keys, strict=True)
        ]
        return jnp.concatenate(maps)

    def describe(self) -> str:
        """The options that were given, in words, for the fingerprint of an evaluation."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options)


def choose_contenders(
    tables: Sequence[int],
    methods: Sequence[str | Contender] | None,
    options: Options,
    activation: str | None,
    batch_size: int,
) -> dict[int, tuple[Contender, ...]]:
    """The methods of each table, in order, with their options.

    Args:
      tables: keys of `TABLES`.
      methods: the rows of every table; None takes the paper's rows of each.
      options: method name -> option -> value; those of "dmbp" are fields of `DMBP` and hold for
        its variants too.
      activation: for the methods that make probabilities; None leaves it to the network.
      batch_size: images at once.

    Raises:
      InputError: an unknown table, method or option.
    """
    for table in tables:
        if table not in TABLES:
            raise InputError(f"tables: Expected some of {tuple(TABLES)}, got {table!r}.")
    if not tables or len(set(tables)) != len(tables):
        raise InputError(f"tables: Expected each of 1, 2, 3 at most once, got {tuple(tables)}.")
    for name in options:
        if name not in METHODS:
            raise InputError(f"options: Expected a method of {tuple(METHODS)}, got {name!r}.")
    make = partial(_contender, options=options, activation=activation, batch_size=batch_size)
    if methods is None:
        return {table: tuple(map(make, TABLES[table].methods)) for table in tables}
    chosen = tuple(m if isinstance(m, Contender) else make(m) for m in methods)
    names = [contender.name for contender in chosen]
    if not names or len(set(names)) != len(names):
        raise InputError(f"methods: Expected different methods, at least one, got {names}.")
    return dict.fromkeys(tables, chosen)


def _contender(
    name: str, *, options: Options, activation: str | None, batch_size: int
) -> Contender:
    if name not in _TITLES:
        raise InputError(f"methods: Expected some of {NAMES}, got {name!r}.")
    if name in _LOSSES:
        given = options.get("dmbp", {})
        _check_options("dmbp", given, [f.name for f in fields(DMBP) if f.name != "loss"])
        config = DMBP(loss=_LOSSES[name], **given)  # pyrefly: ignore[bad-argument-type]
        # A chunk chosen from free memory would make the last bits depend on the moment.
        chosen = {"config": config, "chunk_size": batch_size}
        return Contender(name, METHODS["dmbp"], _TITLES[name], tuple(chosen.items()))
    function, given = METHODS[name], dict(options.get(name, {}))
    known = [p for p in inspect.signature(function).parameters if p not in _CONVENTION]
    _check_options(name, given, [p for p in known if p != "return_residual"])
    if "activation" in known and activation is not None:
        given.setdefault("activation", activation)
    return Contender(
        name,
        function,
        _TITLES[name],
        tuple(sorted(given.items())),
        noisy=name in _NOISY,
        zero=name not in _WITHOUT_ZERO,
    )


def _check_options(method: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            options = ", ".join(known) or "none"
            raise InputError(f"options: Expected an option of {method} ({options}), got {name!r}.")
