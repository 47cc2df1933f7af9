"""How an evaluation is made: its settings, and the rows of its tables that follow from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from dmbp_jax.catalogue import CATALOGUE, ROWS, Method
from dmbp_jax.checks import check_choice, check_count
from dmbp_jax.dmbp.config import DMBP
from dmbp_jax.engine.scores import PROBABILITIES
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.experiments.rows import TABLES, MethodRow, StoredRow, TableRow
from dmbp_jax.graph.linearisation import PRODUCTS

# Dataset -> targets drawn for each class, where not all are taken. The paper's Table 1 has a
# subset of ImageNet alone; the generated dataset is ours and has no end.
IMAGES_PER_CLASS = {"imagenet": 5, "generated": 4}


@dataclass(frozen=True)
class Settings:
    """Settings of one evaluation, checked when made.

    Attributes:
      tables: which of the paper's tables, of 1, 2 and 3.
      methods: rows of every table: names, `dmbp_jax.catalogue.Method`s of your own, or
        other rows (`MethodRow`, `open_maps`); None takes the paper's rows.
      options: method -> option -> value, such as
        `{"rise": {"n_masks": 500}, "dmbp": {"steps": 50}}`.
      nonaffine: as in `dmbp_jax.attribute`, of every method that looks into the network; "freeze"
        for networks with gates, such as normalisation and attention.
      images_per_class: targets drawn for each class, or "all"; None is what the dataset asks for:
        5 for ImageNet (the paper's Table 1), 4 for generated pictures, all for every other.
      limit: at most so many targets, spread evenly over those drawn; None is no limit.
      seed: of the choice of targets, of noise, and of the re-drawn layers.
      redraws: new last layers that Table 3 averages over.
      step: pixels inserted at a time; 224 when neither `step` nor `points` is given.
      points: number of points of a curve, instead of `step`.
      activation: "softmax" or "sigmoid"; None takes the network's own, else softmax.
      last_layer: path of the last layer's weights where it cannot be found (Table 3).
      batch_size: images at once.
      gallery: number of best and of worst images in the page.

    Raises:
      InputError, InputTypeError: a field has a wrong type or range.

    Example:
      >>> Settings(tables=(1, 3), options={"dmbp": {"steps": 50}}).batch_size
      8
    """

    tables: tuple[int, ...] = (1, 2, 3)
    methods: Sequence[str | Method | TableRow] | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    nonaffine: str = "refuse"
    images_per_class: int | Literal["all"] | None = None
    limit: int | None = None
    seed: int = 0
    redraws: int = 5
    step: int | None = None
    points: int | None = None
    activation: str | None = None
    last_layer: str | None = None
    batch_size: int = 8
    gallery: int = 4

    def __post_init__(self) -> None:
        least = {"seed": 0, "redraws": 1, "batch_size": 1, "gallery": 0}
        optional = {"limit": 1, "step": 1, "points": 2}
        if self.images_per_class != "all":
            optional["images_per_class"] = 1
        for name, minimum in (least | optional).items():
            if name in least or getattr(self, name) is not None:
                check_count(getattr(self, name), name, minimum)
        if self.points is not None and self.step is not None:
            raise InputError("points: Expected step or points, got both.")
        if self.activation is not None:
            check_choice(self.activation, "activation", tuple(PROBABILITIES))
        check_choice(self.nonaffine, "nonaffine", PRODUCTS)
        self.rows()

    def rows(self, network: str = "") -> dict[int, tuple[TableRow, ...]]:
        """Table -> its rows, in order, with their options, for a network of this name.

        Raises:
          InputError: an unknown table, method or option.
        """
        tables = self.tables
        for table in tables:
            if table not in TABLES:
                raise InputError(f"tables: Expected some of {tuple(TABLES)}, got {table!r}.")
        if not tables or len(set(tables)) != len(tables):
            raise InputError(f"tables: Expected each of 1, 2, 3 at most once, got {tuple(tables)}.")
        given = () if self.methods is None else tuple(self.methods)
        known = {one.name: one for one in (*CATALOGUE, *given) if isinstance(one, Method)}
        for name in self.options:
            if name not in known:
                raise InputError(f"options: Expected a method of {tuple(known)}, got {name!r}.")

        def make(row: str | Method | TableRow) -> TableRow:
            if not isinstance(row, (str, Method)):
                return row
            name = row.name if isinstance(row, Method) else row
            method = next((one for one in known.values() if name in one.rows), None)
            if method is None:
                raise InputError(f"methods: Expected some of {ROWS}, got {name!r}.")
            return _make_row(name, method, self, network)

        if self.methods is None:
            return {table: tuple(map(make, TABLES[table].methods)) for table in tables}
        rows = tuple(map(make, given))
        names = [row.name for row in rows]
        if not names or len(set(names)) != len(names):
            raise InputError(f"methods: Expected different methods, at least one, got {names}.")
        fixed = [row.name for row in rows if isinstance(row, StoredRow)]
        if fixed and 3 in tables:
            raise InputError(
                f"tables: Expected 1 or 2 with stored maps ({', '.join(fixed)}), got "
                f"{tuple(tables)}: Table 3 makes maps of networks with another last layer."
            )
        return dict.fromkeys(tables, rows)

    def per_class(self, dataset: str) -> int | None:
        """Targets drawn for each class of a dataset of this name; None takes all."""
        if self.images_per_class is None:
            return IMAGES_PER_CLASS.get(dataset)
        return None if self.images_per_class == "all" else self.images_per_class


def _make_row(name: str, method: Method, settings: Settings, network: str) -> MethodRow:
    given = dict(settings.options.get(method.name, {}))
    fields_of_dmbp = [f.name for f in fields(DMBP) if f.name != "loss"] if method.variants else []
    for option in given:
        if option not in (known := [*method.options, *fields_of_dmbp]):
            words = ", ".join(known) or "none"
            raise InputError(
                f"options: Expected an option of {method.name} ({words}), got {option!r}."
            )
    shared = {"nonaffine": settings.nonaffine, "activation": settings.activation}
    for option, value in shared.items():
        if option in method.options and value not in (None, "refuse"):
            given.setdefault(option, value)
    if name == "rise" and network.split("_")[0] == "resnet50":
        given.setdefault("n_masks", 8000)  # RISE, Sec. 4: 4000 for VGG16, 8000 for ResNet50
    title = method.title
    if method.variants:
        variant = method.variants[method.rows.index(name)]
        title = f"{title}, {variant}"
        changes = {field: given.pop(field) for field in fields_of_dmbp if field in given}
        config = given.get("config", DMBP())
        if not isinstance(config, DMBP):
            raise InputTypeError(f"config: Expected a DMBP, got {type(config).__name__}.")
        given["config"] = replace(config, loss=variant, **changes)
        # A chunk chosen from free memory would make the last bits depend on the moment.
        given["chunk_size"] = settings.batch_size
    options = tuple(sorted(given.items()))
    return MethodRow(name, method.function, title, options, method.random, method.has_zero)
