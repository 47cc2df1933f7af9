"""`evaluate`: settings and arguments that do not fit, rows of the catalogue and of your own."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tiny_evaluation import SHORT, network, run, watched

import dmbp_jax
from dmbp_jax.catalogue import CATALOGUE, ROWS, Method, find_method
from dmbp_jax.data import Dataset, FilePicture, Skipped, list_generated
from dmbp_jax.dmbp.config import DMBP
from dmbp_jax.dmbp.objective import OBJECTIVES
from dmbp_jax.errors import DataError, DmbpError, InputError, InputTypeError
from dmbp_jax.experiments import TABLES, MethodRow, Settings
from dmbp_jax.experiments.plan import make_plan
from dmbp_jax.experiments.results import OWN, RECORDS
from dmbp_jax.methods import METHODS


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"tables": (4,)}, InputError, "tables: Expected some of"),
        ({"tables": ()}, InputError, "tables: Expected"),
        ({"methods": ("magic",)}, InputError, "methods: Expected some of"),
        ({"methods": ("rise", "rise")}, InputError, "different methods"),
        ({"methods": ()}, InputError, "at least one"),
        ({"options": {"rise": {"mask": 3}}}, InputError, "option of rise .n_masks, cells"),
        ({"options": {"magic": {}}}, InputError, "Expected a method"),
        ({"options": {"dmbp": {"loss": "all"}}}, InputError, "option of dmbp"),
        ({"options": {"dmbp": {"config": 3}}}, InputTypeError, "config: Expected a DMBP, got int"),
        ({"options": {"gradient": {"steps": 3}}}, InputError, "option of gradient"),
        ({"options": {"dmbp": {"steps": -1}}}, InputError, "steps: Expected at least 0"),
        ({"points": 3, "step": 3}, InputError, "got both"),
        ({"points": 1}, InputError, "points: Expected at least 2"),
        ({"limit": 0}, InputError, "limit: Expected at least 1"),
        ({"batch_size": 1.5}, InputTypeError, "batch_size: Expected an int"),
        ({"activation": "none"}, InputError, "activation: Expected"),
        ({"redraws": 0}, InputError, "redraws: Expected at least 1"),
        ({"images_per_class": 0}, InputError, "images_per_class: Expected at least 1"),
        ({"images_per_class": "some"}, InputTypeError, "images_per_class: Expected an int"),
    ],
)
def test_settings_are_checked_when_made(
    changes: dict[str, Any], error: type[DmbpError], words: str
) -> None:
    with pytest.raises(error, match=words):
        Settings(**changes)


def test_arguments_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(InputTypeError, match="preprocess: Expected a function"):
        run(tmp_path, preprocess=None)
    with pytest.raises(InputTypeError, match="crop: Expected a function"):
        run(tmp_path, crop=3)
    builtin = dmbp_jax.load("builtin")
    imagenet = dataclasses.replace(list_generated(size=1), name="x", classes=("a", "b"))
    with pytest.raises(InputError, match="dataset: Expected the 10 classes of builtin"):
        run(tmp_path, params=builtin, apply_fn=None, dataset=imagenet)
    sizes = iter(range(20, 40))
    with pytest.raises(InputError, match="preprocess: Expected arrays of one shape"):
        run(tmp_path / "a", preprocess=lambda _: np.zeros((next(sizes), 24, 3), np.float32))
    with pytest.raises(InputError, match=r"crop: Expected pictures of x's \(24, 24\) pixels"):
        run(tmp_path / "b", crop=lambda picture: picture)
    assert not (tmp_path / OWN / RECORDS).exists()


def test_without_a_single_good_picture(tmp_path: Path) -> None:
    dataset = Dataset(
        "photos",
        (FilePicture("gone.png", tmp_path / "gone.png", (1,)),),
        (Skipped("other.png", "no label"),),
    )
    with pytest.raises(DataError, match=r"one picture that can be read; other\.png: no label"):
        run(tmp_path / "out", dataset=dataset)


def test_the_rows_are_those_of_the_catalogue() -> None:
    assert set(ROWS) == {*METHODS, "dmbp-positive", "dmbp-positive-negative"}
    assert TABLES[1].methods == ("gradient", "dmbp-positive", "dmbp-positive-negative", "dmbp")
    assert TABLES[2].methods == TABLES[3].methods == tuple(method.name for method in CATALOGUE)
    variants = find_method("dmbp").variants
    assert set(variants) == set(OBJECTIVES) and variants[-1] == DMBP().loss
    rows = {row.name: row for table in Settings().rows().values() for row in table}
    assert set(rows) == set(ROWS)
    losses = {
        name: dict(row.options)["config"].loss for name, row in rows.items() if "dmbp" in name
    }
    assert losses == {
        "dmbp-positive": "positive",
        "dmbp-positive-negative": "positive-negative",
        "dmbp": "all",
    }
    assert rows["dmbp-positive"].title == "DMBP, positive"
    for method in CATALOGUE:
        row = rows[method.name]
        assert row.function is METHODS[method.name]
        assert (row.random, row.has_zero) == (method.random, method.has_zero)
        assert row.title.startswith(method.title)


def test_a_method_from_outside_takes_part(tmp_path: Path) -> None:
    own = Method("brightness", "Bright", module="outside_method")
    settings = dataclasses.replace(
        SHORT, methods=["gradient", own], options={"brightness": {"gain": 2.0}}
    )
    result = run(tmp_path, settings)
    assert [row.title for row in result.table(1).rows] == ["ND = gradient × input", "Bright"]
    assert result.table(1).cell("brightness", "im").images > 0
    with pytest.raises(InputError, match=r"option of brightness \(gain\), got 'colour'"):
        dataclasses.replace(settings, options={"brightness": {"colour": 2.0}})
    (row,) = dataclasses.replace(settings, methods=[own]).rows()[1]
    assert isinstance(row, MethodRow) and row.options == (("gain", 2.0),)


def test_rise_has_as_many_masks_as_its_paper_for_this_network(tmp_path: Path) -> None:
    def masks(network: str, **options: Any) -> Any:
        (row,) = Settings(tables=(2,), methods=["rise"], options=options).rows(network)[2]
        return dict(row.options).get("n_masks")

    assert masks("resnet50") == masks("resnet50_voc") == 8000
    assert masks("vgg16") is masks("vgg16_voc") is masks("builtin") is masks("resnet18") is None
    assert masks("resnet50", rise={"n_masks": 500}) == 500

    def resnet50(params: Any, x: jax.Array) -> jax.Array:
        return network(params, x)

    def stop(name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # once the settings are on disk
        settings = dataclasses.replace(SHORT, methods=["rise"])
        run(tmp_path, settings, apply_fn=resnet50, dataset=watched(stop))
    stored = json.loads((tmp_path / OWN / "manifest.json").read_text())["configuration"]
    assert stored["options of rise"] == {"n_masks": 8000}


@pytest.mark.parametrize(
    ("dataset", "chosen", "targets"),
    [
        ("voc", None, 24),
        ("csv", None, 24),
        ("imagenet", None, 10),
        ("generated", None, 8),
        ("voc", 3, 6),
        ("imagenet", "all", 24),
    ],
)
def test_all_targets_are_taken_but_of_imagenet_five_a_class(
    dataset: str, chosen: Any, targets: int
) -> None:
    pictures = tuple(FilePicture(f"{i}.jpg", Path(f"{i}.jpg"), (i % 2,)) for i in range(24))
    settings = Settings(tables=(1,), images_per_class=chosen)
    plan = make_plan(Dataset(dataset, pictures), settings, settings.rows())
    assert sum(map(len, plan.batches)) == targets
