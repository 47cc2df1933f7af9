"""The rows of the paper's tables: methods of the catalogue, or your own, with their options."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from PIL import Image

from dmbp_jax.catalogue import CATALOGUE, ROWS, Method
from dmbp_jax.data.samples import Target
from dmbp_jax.dmbp.config import DMBP
from dmbp_jax.errors import InputError
from dmbp_jax.graph.images import check_images
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.metrics.heatmaps import fit_heatmap

Options = Mapping[str, Mapping[str, Any]]


class Table(NamedTuple):
    """One table of the paper: its title, its methods and its measures."""

    title: str
    methods: tuple[str, ...]
    measures: tuple[str, ...]


_ALL = tuple(method.name for method in CATALOGUE)
_VARIANTS = tuple(name for method in CATALOGUE if method.variants for name in method.rows)

TABLES: dict[int, Table] = {
    1: Table("what each term of the objective adds", ("gradient", *_VARIANTS), ("im", "cim")),
    2: Table("all methods", _ALL, ("im", "cim")),
    3: Table("rank correlation after the last layer is re-drawn", _ALL, ("rank", "rank_absolute")),
}


class Batch(NamedTuple):
    """Targets whose pictures could be read, filled up to the size that is compiled.

    Attributes:
      targets: the n targets.
      crops: target -> its small crop; empty without a gallery.
      x: (N, H, W, C) with N >= n; the rows beyond n repeat the first.
      labels: (N,) int32.
      others: (N, K) int32, the other labels of each picture, filled up with -1.
      masks: (N, H, W) bool, where the target is, or None where no picture says so.
      keys: (N,) random keys.
    """

    targets: Sequence[Target]
    crops: Mapping[tuple[str, int], Image.Image]
    x: jax.Array
    labels: jax.Array
    others: np.ndarray
    masks: np.ndarray | None
    keys: jax.Array


class TableRow(Protocol):
    """What is scored in a row of a table.

    Attributes:
      name: unique, in file names and records.
      title: in tables; "" is the name.
      options: how the maps are made, name -> value.
      has_zero: whether zero means "no evidence"; if not, pictures are drawn around the mean.
      repeatable: whether the maps can be made again for another network, as Table 3 does.
      identity: what makes the maps, for the check of a continued evaluation.
    """

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def options(self) -> tuple[tuple[str, Any], ...]: ...
    @property
    def has_zero(self) -> bool: ...
    @property
    def repeatable(self) -> bool: ...
    @property
    def identity(self) -> Any: ...

    def of(self, batch: Batch) -> Callable[..., jax.Array]:
        """The maps of one batch: (params, x, label, *, apply_fn) -> (N, H, W), signed."""
        ...


@dataclass(frozen=True)
class MethodRow:
    """A row of a table: a method with its options, ready to be called on a batch.

    Attributes:
      name: unique, in file names and records.
      function: `f(params, x, label, *, apply_fn, **options)` to maps, as in `dmbp_jax.methods`.
      title: in tables; "" is the name.
      options: keyword arguments of `function`.
      random: whether the map depends on `key=`, which then is (N,), a key for each image, so that
        its map does not depend on its batch.
      has_zero: whether zero means "no evidence"; if not, pictures are drawn around the mean.
    """

    name: str
    function: Callable[..., Any]
    title: str = ""
    options: tuple[tuple[str, Any], ...] = ()
    random: bool = False
    has_zero: bool = True

    repeatable = True

    @property
    def identity(self) -> Any:
        """The function."""
        return self.function

    def of(self, batch: Batch) -> Callable[..., jax.Array]:
        """The maps of one batch, as in `TableRow`."""
        return partial(self.heatmaps, keys=batch.keys)

    def heatmaps(
        self,
        params: Any,
        x: jax.Array,
        label: jax.Array,
        *,
        keys: jax.Array,
        apply_fn: ApplyFn | None = None,
    ) -> jax.Array:
        """Signed heat maps (N, H, W) of a batch; `keys` are one for each image."""
        options = dict(self.options) | ({"key": keys} if self.random else {})
        return fit_heatmap(
            self.function(params, x, label, apply_fn=apply_fn, **options), check_images(x)
        )


def choose_rows(
    tables: Sequence[int],
    methods: Sequence[str | Method | TableRow] | None,
    options: Options,
    activation: str | None,
    batch_size: int,
    network: str = "",
) -> dict[int, tuple[TableRow, ...]]:
    """The rows of each table, in order, with their options.

    Args:
      tables: keys of `TABLES`.
      methods: the rows of every table; None takes the paper's rows of each.
      options: method name -> option -> value; of "dmbp" also the fields of `DMBP`, and all hold
        for its variants too.
      activation: for the methods that make probabilities; None leaves it to the network.
      batch_size: images at once.
      network: name of the network, for options that a method's paper sets for it alone.

    Raises:
      InputError: an unknown table, method or option.
    """
    for table in tables:
        if table not in TABLES:
            raise InputError(f"tables: Expected some of {tuple(TABLES)}, got {table!r}.")
    if not tables or len(set(tables)) != len(tables):
        raise InputError(f"tables: Expected each of 1, 2, 3 at most once, got {tuple(tables)}.")
    given = () if methods is None else tuple(methods)
    own = {method.name: method for method in given if isinstance(method, Method)}
    known = {method.name: method for method in CATALOGUE} | own
    for name in options:
        if name not in known:
            raise InputError(f"options: Expected a method of {tuple(known)}, got {name!r}.")

    def make(row: str | Method | TableRow) -> TableRow:
        if not isinstance(row, (str, Method)):
            return row
        name = row.name if isinstance(row, Method) else row
        method = next((m for m in known.values() if name in m.rows), None)
        if method is None:
            raise InputError(f"methods: Expected some of {ROWS}, got {name!r}.")
        chosen = dict(options.get(method.name, {}))
        return _make_row(name, method, chosen, activation, batch_size, network)

    if methods is None:
        return {table: tuple(map(make, TABLES[table].methods)) for table in tables}
    rows = tuple(map(make, given))
    names = [row.name for row in rows]
    if not names or len(set(names)) != len(names):
        raise InputError(f"methods: Expected different methods, at least one, got {names}.")
    fixed = [row.name for row in rows if not row.repeatable]
    if fixed and "rank" in {measure for table in tables for measure in TABLES[table].measures}:
        raise InputError(
            f"tables: Expected 1 or 2 with stored maps ({', '.join(fixed)}), got {tuple(tables)}: "
            "Table 3 makes maps of networks with another last layer."
        )
    return dict.fromkeys(tables, rows)


def _make_row(
    name: str,
    method: Method,
    given: dict[str, Any],
    activation: str | None,
    batch_size: int,
    network: str,
) -> MethodRow:
    if method.variants:
        own = [f.name for f in fields(DMBP) if f.name != "loss"]
        _check_options(method.name, given, [*method.options, *own])
        variant = method.variants[method.rows.index(name)]
        title = f"{method.title}, {variant}"
        settings = {name: given.pop(name) for name in own if name in given}
        config = replace(given.pop("config", DMBP()), loss=variant, **settings)
        # A chunk chosen from free memory would make the last bits depend on the moment.
        options = {"config": config, "chunk_size": batch_size, **given}
    else:
        _check_options(method.name, given, method.options)
        if "activation" in method.options and activation is not None:
            given.setdefault("activation", activation)
        if name == "rise" and network.split("_")[0] == "resnet50":
            given.setdefault("n_masks", 8000)  # RISE, Sec. 4: 4000 for VGG16, 8000 for ResNet50
        title, options = method.title, dict(sorted(given.items()))
    return MethodRow(
        name, method.function, title, tuple(options.items()), method.random, method.has_zero
    )


def _check_options(method: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            options = ", ".join(known) or "none"
            raise InputError(f"options: Expected an option of {method} ({options}), got {name!r}.")
