"""What `evaluate` measures: every number is that of the public metric on the single image."""

import csv
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_evaluation import SETTINGS, make_params, network, preprocess, run, watched

from dmbp_jax.data import Dataset, FilePicture, list_generated
from dmbp_jax.experiments import Evaluation, MethodRow, Record, Settings
from dmbp_jax.experiments.measuring import localise
from dmbp_jax.experiments.results import OWN
from dmbp_jax.experiments.tables import average, mean_curve
from dmbp_jax.methods import METHODS
from dmbp_jax.metrics import complementary_insertion, insertion, redraw_last_layer


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """An uninterrupted evaluation."""
    return run(tmp_path_factory.mktemp("whole"))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation with average ranks for ties, pixel by pixel in float64."""
    ranks = []
    for values in (a.ravel(), b.ravel()):
        below = np.array([(values < v).sum() for v in values], float)
        equal = np.array([(values == v).sum() for v in values], float)
        ranks.append(below + (equal + 1) / 2)
    return float(np.corrcoef(*ranks)[0, 1])


def test_every_number_is_that_of_the_public_metric_on_the_single_image(whole: Evaluation) -> None:
    params, dataset = make_params(), list_generated(size=8)
    pictures = {picture.name: picture for picture in dataset}
    assert {record.method for record in whole.records} == {"gradient", "smoothgrad", "dmbp"}
    assert len(whole.records) == 7 * 3
    gradients = [record for record in whole.records if record.method == "gradient"]
    for record in gradients:
        picture = pictures[record.picture]
        x = preprocess(picture.open())
        heat = METHODS["gradient"](params, x, record.label, apply_fn=network).sum(-1)
        ours = insertion(params, x, record.label, heat, apply_fn=network, points=5)
        others = [label for label in picture.labels if label != record.label]
        theirs = complementary_insertion(params, x, others, heat, apply_fn=network, points=5)
        expected = {"im": ours.auc, "cim": theirs.auc}
        for name, value in expected.items():
            np.testing.assert_allclose(record.values[name], value, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(record.curves["im"], ours.scores, atol=2e-5)
        if others:
            np.testing.assert_allclose(record.curves["cim"], theirs.scores, atol=2e-5)
        else:
            assert record.curves["cim"].size == 0


def test_table_3_is_the_mean_over_redrawn_layers_of_both_rank_correlations(
    whole: Evaluation,
) -> None:
    params = make_params()
    pictures = {picture.name: picture for picture in list_generated(size=8)}
    keys = [jax.random.fold_in(jax.random.key(SETTINGS.seed), i) for i in range(SETTINGS.redraws)]
    gradient = METHODS["gradient"]
    for record in [r for r in whole.records if r.method == "gradient"][:3]:
        x = preprocess(pictures[record.picture].open())
        layers = [redraw_last_layer(params, x, apply_fn=network, key=key) for key in keys]
        heat, *others = [
            np.asarray(gradient(p, x, record.label, apply_fn=network).sum(-1), np.float64)
            for p in (params, *layers)
        ]
        signed = np.mean([spearman(heat, other) for other in others])
        absolute = np.mean([spearman(abs(heat), abs(other)) for other in others])
        np.testing.assert_allclose(record.values["rank"], signed, atol=1e-4)
        np.testing.assert_allclose(record.values["rank_absolute"], absolute, atol=1e-4)
    assert Settings().redraws >= 5


def test_signs_that_change_while_places_stay_show_in_the_absolute_column(tmp_path: Path) -> None:
    def signs(params: Any, x: Any, label: Any, *, apply_fn: Any) -> jax.Array:
        return x.sum(-1) * jnp.sign(params["last"][0, 0])

    settings = Settings(
        tables=(3,), methods=[MethodRow("signs", signs)], redraws=6, limit=3, batch_size=3
    )
    result = run(tmp_path, settings)
    params, x = make_params(), jnp.zeros((1, 24, 24, 3)) + 0.5
    own = jnp.sign(params["last"][0, 0])
    drawn = [
        redraw_last_layer(
            params, x, apply_fn=network, key=jax.random.fold_in(jax.random.key(0), i)
        )["last"][0, 0]
        for i in range(6)
    ]
    expected = float(np.mean([jnp.sign(value) * own for value in drawn]))
    assert abs(expected) < 1  # both signs come up
    assert result.table(3).measures == ("rank", "rank_absolute")
    assert result.table(3).cell("signs", "rank").mean == pytest.approx(expected, abs=1e-5)
    assert result.table(3).cell("signs", "rank_absolute").mean == pytest.approx(1, abs=1e-5)
    assert "| absolute rank correlation |" in str(result)


def test_tables_average_images_not_targets(whole: Evaluation) -> None:
    assert [table.number for table in whole.tables] == [1, 3]
    assert whole.table(1).measures == ("im", "cim", "avg", "pointing", "inside")
    assert whole.table(3).measures == ("rank", "rank_absolute")
    for table in whole.tables:
        for row in table.rows:
            for measure, cell in row.cells.items():
                if measure == "avg":
                    continue
                by_image: dict[str, list[float]] = {}
                for record in whole.records:
                    value = record.values[measure]
                    if record.method == row.method and np.isfinite(value):
                        by_image.setdefault(record.picture, []).append(value)
                scores = np.array([np.mean(values) for values in by_image.values()])
                assert cell.images == len(scores)
                np.testing.assert_allclose(cell.mean, scores.mean(), rtol=1e-12)
                error = scores.std(ddof=1) / np.sqrt(len(scores))
                np.testing.assert_allclose(cell.standard_error, error, rtol=1e-12)
            if table.number == 1:
                mean = (row.cells["im"].mean + row.cells["cim"].mean) / 2
                assert row.cells["avg"].mean == pytest.approx(mean, rel=1e-12)
    pictures = {record.picture for record in whole.records}
    assert whole.table(1).cell("dmbp", "im").images == len(pictures) < 7  # two targets in one


def test_average_by_hand() -> None:
    def record(picture: str, value: float) -> Record:
        return Record(picture, 0, "m", 4, {"im": value}, {})

    cell = average(
        [record("a", 0.0), record("a", 1.0), record("b", 0.25), record("c", math.nan)], "im"
    )
    assert (cell.mean, cell.images) == (0.375, 2)
    assert cell.standard_error == pytest.approx(0.125)
    assert average([record("a", 0.5)], "im").images == 1
    assert math.isnan(average([record("a", 0.5)], "im").standard_error)
    assert math.isnan(average([], "im").mean)


def test_mean_curve_averages_images_not_targets() -> None:
    def record(picture: str, label: int, curve: list[float]) -> Record:
        return Record(picture, label, "m", 4, {}, {"im": np.array(curve)})

    records = [record("a", 0, [0, 1]), record("a", 1, [0, 0]), record("b", 0, [1, 1])]
    assert mean_curve(records, "m", "im").tolist() == [0.5, 0.75]
    assert mean_curve(records, "m", "cim").size == 0


def test_localisation_by_hand() -> None:
    heat = np.zeros((3, 24, 24), np.float32)
    heat[0, 2, 2], heat[0, 20, 20] = 3, 1  # highest point inside, a quarter outside
    heat[1, 2, 2], heat[1, 20, 20] = 1, 3
    heat[2] = -1
    masks = np.zeros((3, 24, 24), bool)
    masks[:, :6, :6] = True
    found = localise(heat, masks)
    assert found["pointing"].tolist() == [1, 0, 0]
    assert found["inside"].tolist() == [0.75, 0.25, 0]
    assert found["area"] == pytest.approx([36 / 576] * 3)
    heat[1] = 0
    heat[1, 7, 2] = 1  # 2 pixels below; 15 pixels of 224 are 1.6 of 24
    assert localise(heat, masks)["pointing"][1] == 0
    heat[1] = 0
    heat[1, 6, 2] = 1
    assert localise(heat, masks)["pointing"][1] == 1
    unknown = localise(heat, np.zeros_like(masks))
    assert all(np.isnan(column).all() for column in unknown.values())


def counting(maps: Callable[..., Any], calls: list[int], **options: Any) -> MethodRow:
    def function(params: Any, x: Any, label: Any, *, apply_fn: Any) -> Any:
        calls.append(len(x))
        return maps(params, x, label, apply_fn=apply_fn)

    return MethodRow("counted", function, **options)


@pytest.mark.parametrize(("tables", "maps"), [((1,), 1), ((1, 2), 1), ((3,), 6), ((1, 2, 3), 6)])
def test_a_map_is_made_once_whatever_is_measured(
    tables: tuple[int, ...], maps: int, tmp_path: Path
) -> None:
    calls: list[int] = []
    counted = counting(METHODS["gradient"], calls)
    settings = Settings(tables=tables, methods=[counted], points=3, limit=5, batch_size=2)
    result = run(tmp_path, settings)
    assert calls == [2] * 3 * maps  # batches of two, the last filled up; Table 3 needs five more
    assert len(result.records) == 5
    assert len(result.tables) == len(tables)


@pytest.mark.slow
def test_a_picture_is_decoded_once(tmp_path: Path) -> None:
    opened: list[str] = []
    settings = dataclasses.replace(SETTINGS, tables=(1,), methods=("gradient",), batch_size=7)
    result = run(tmp_path, settings, dataset=watched(opened.append))
    assert (tmp_path / OWN / "pictures").is_dir()
    assert sorted(opened) == sorted({record.picture for record in result.records})


def test_noise_belongs_to_the_image_not_to_its_batch(whole: Evaluation, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, tables=(1,), methods=("smoothgrad",))
    expected = {record.key: record.values for record in whole.records}
    for record in run(tmp_path / "1", dataclasses.replace(settings, batch_size=1)).records:
        for name, value in record.values.items():
            np.testing.assert_allclose(value, expected[record.key][name], rtol=1e-4, atol=1e-5)
    other = run(tmp_path / "seed", dataclasses.replace(settings, seed=1)).records
    common = [record for record in other if record.key in expected]
    assert common
    assert all(record.values["im"] != expected[record.key]["im"] for record in common)


@pytest.mark.slow
def test_a_map_that_is_not_finite_is_not_measured(tmp_path: Path) -> None:
    def broken(params: Any, x: jax.Array, label: Any, *, apply_fn: Any) -> jax.Array:
        return x.sum(-1).at[0, 0, 0].set(jnp.nan)

    settings = Settings(tables=(1, 3), methods=[MethodRow("<b>", broken)], points=3, limit=4)
    result = run(tmp_path, settings)
    bad = [r for r in result.records if all(math.isnan(v) for v in r.values.values())]
    assert len(bad) == 1
    assert all(curve.size == 0 for curve in bad[0].curves.values())
    cell = result.table(1).cell("<b>", "im")
    assert cell.images == len({r.picture for r in result.records if r not in bad})
    page = (tmp_path / "evaluation.html").read_text()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page.replace('<b style="background', "")


def test_activation_and_single_labels(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 40, 3), np.uint8)).save(path)
    dataset = Dataset("photos", tuple(FilePicture(p.name, p, (4,)) for p in paths))
    results = [
        run(
            tmp_path / str(activation),
            Settings(tables=(2,), methods=["gradient"], points=3, activation=activation),
            dataset=dataset,
            crop=None,
        )
        for activation in (None, "softmax", "sigmoid")
    ]
    assert results[0].records[0].values["im"] == results[1].records[0].values["im"]
    assert results[0].records[0].values["im"] != results[2].records[0].values["im"]
    for result in results:
        cell = result.table(2).cell("gradient", "cim")
        assert math.isnan(cell.mean) and cell.images == 0
        assert "inside" not in result.table(2).measures
        assert not (result.folder / OWN / "pictures").exists()
    assert results[0].table(2).measures == ("im",)  # a column without a number is not shown
    assert "cIM" not in str(results[0]) and "Avg" not in str(results[0])
    with (results[0].folder / "tables.csv").open(newline="") as stream:
        (undefined,) = [row for row in csv.DictReader(stream) if row["measure"] == "cim"]
    assert (undefined["mean"], undefined["images"]) == ("", "0")
