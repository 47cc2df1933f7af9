"""`dmbp evaluate` and its Python API: what it measures, keeps, continues, refuses and shows.

A tiny network on small generated pictures; the kill test stops a real process with SIGKILL.
"""

import base64
import csv
import dataclasses
import io
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import dmbp_jax
from dmbp_jax.cli import evaluate as command
from dmbp_jax.cli import main
from dmbp_jax.data import Dataset, FilePicture, Skipped, list_generated
from dmbp_jax.errors import DataError, DmbpError, InputError, InputTypeError, ResumeError
from dmbp_jax.experiments import NAMES, TABLES, Contender, Evaluation, Record, Settings, evaluate
from dmbp_jax.experiments.gallery import ends, folder_of, prune, rank_targets
from dmbp_jax.experiments.journal import RECORDS
from dmbp_jax.experiments.measuring import localise
from dmbp_jax.experiments.paper import paper_value
from dmbp_jax.experiments.tables import average, mean_curve
from dmbp_jax.methods import METHODS
from dmbp_jax.metrics import complementary_insertion, insertion, layer_reinitialisation
from dmbp_jax.pictures import diverging

pytestmark = pytest.mark.usefixtures("quick_compilation")

SIDE = 24
KILLS = int(os.environ.get("DMBP_KILLS", "3"))
SETTINGS = Settings(
    tables=(1, 3),
    methods=("gradient", "smoothgrad", "dmbp"),
    options={"smoothgrad": {"samples": 2}, "dmbp": {"steps": 2}},
    points=5,
    limit=7,
    batch_size=3,
)

LONG = dataclasses.replace(
    SETTINGS, methods=("gradient", "smoothgrad"), limit=None, batch_size=2
)  # ten batches


def network(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Two convolutions and a dense layer: logits (N, 10) of (N, 24, 24, 3)."""
    for name in ("first", "second"):
        x = jax.lax.conv_general_dilated(
            x, params[name], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x)
    return x.mean((1, 2)) @ params["last"]


def make_params(seed: int = 0) -> dict[str, jax.Array]:
    """Random weights of `network`."""
    shapes = {"first": (3, 3, 3, 6), "second": (3, 3, 6, 8), "last": (8, 10)}
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return {
        name: jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def crop(picture: Image.Image) -> Image.Image:
    """The picture as the tiny network sees it."""
    return picture.resize((SIDE, SIDE), Image.Resampling.BOX)


def preprocess(picture: Image.Image) -> np.ndarray:
    """(24, 24, 3) float32 in [-1, 1]."""
    return np.asarray(crop(picture), np.float32) / 127.5 - 1


def run(out: Path, settings: Settings = SETTINGS, **changes: Any) -> Evaluation:
    """An evaluation of the tiny network on eight generated pictures."""
    arguments: dict[str, Any] = {
        "params": make_params(),
        "dataset": list_generated(size=8),
        "apply_fn": network,
        "preprocess": preprocess,
        "crop": crop,
    }
    arguments |= changes
    return evaluate(arguments.pop("params"), arguments.pop("dataset"), out, settings, **arguments)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """An uninterrupted evaluation."""
    return run(tmp_path_factory.mktemp("whole"))


# what is measured


def test_every_number_is_that_of_the_public_metric_on_the_single_image(whole: Evaluation) -> None:
    params, dataset = make_params(), list_generated(size=8)
    pictures = {picture.name: picture for picture in dataset}
    redraw = jax.random.key(SETTINGS.seed)
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
        rank = layer_reinitialisation(
            params, x, record.label, METHODS["gradient"], apply_fn=network, key=redraw
        )
        expected = {"im": ours.auc, "cim": theirs.auc, "rank": rank.correlation}
        for name, value in expected.items():
            np.testing.assert_allclose(record.values[name], value, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(record.curves["im"], ours.scores, atol=2e-5)
        if others:
            np.testing.assert_allclose(record.curves["cim"], theirs.scores, atol=2e-5)
        else:
            assert record.curves["cim"].size == 0


def test_tables_average_images_not_targets(whole: Evaluation) -> None:
    assert [table.number for table in whole.tables] == [1, 3]
    assert whole.table(1).measures == ("im", "cim", "pointing", "inside")
    assert whole.table(3).measures == ("rank",)
    for table in whole.tables:
        for row in table.rows:
            for measure, cell in row.cells.items():
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


def counting(maps: Callable[..., Any], calls: list[int], **options: Any) -> Contender:
    def function(params: Any, x: Any, label: Any, *, apply_fn: Any) -> Any:
        calls.append(len(x))
        return maps(params, x, label, apply_fn=apply_fn)

    return Contender("counted", function, **options)


@pytest.mark.parametrize(("tables", "maps"), [((1,), 1), ((1, 2), 1), ((3,), 2), ((1, 2, 3), 2)])
def test_a_map_is_made_once_whatever_is_measured(
    tables: tuple[int, ...], maps: int, tmp_path: Path
) -> None:
    calls: list[int] = []
    counted = counting(METHODS["gradient"], calls)
    settings = Settings(tables=tables, methods=[counted], points=3, limit=5, batch_size=2)
    result = run(tmp_path, settings)
    assert calls == [2] * 3 * maps  # batches of two, the last one filled up; Table 3 needs two maps
    assert len(result.records) == 5
    assert len(result.tables) == len(tables)
    run(tmp_path, settings)
    assert len(calls) == 3 * maps


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


def test_a_map_that_is_not_finite_is_not_measured(tmp_path: Path) -> None:
    def broken(params: Any, x: jax.Array, label: Any, *, apply_fn: Any) -> jax.Array:
        return x.sum(-1).at[0, 0, 0].set(jnp.nan)

    settings = Settings(tables=(1, 3), methods=[Contender("<b>", broken)], points=3, limit=4)
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
        assert not (result.folder / "pictures").exists()
    assert results[0].table(2).measures == ("im",)  # a column without a number is not shown
    assert "cIM" not in str(results[0])
    with (results[0].folder / "tables.csv").open(newline="") as stream:
        (undefined,) = [row for row in csv.DictReader(stream) if row["measure"] == "cim"]
    assert (undefined["mean"], undefined["images"]) == ("", "0")


# what is kept, continued and refused


def test_a_finished_evaluation_is_only_read(whole: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    for path in whole.folder.iterdir():
        if path.is_file():
            (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    again = run(tmp_path / "copy", preprocess=lambda picture: pytest.fail("a picture was opened"))
    assert again.tables == whole.tables
    assert str(again) == str(whole)


def test_stopped_between_batches_it_continues(whole: Evaluation, tmp_path: Path) -> None:
    pictures = []

    def stopping(picture: Image.Image) -> np.ndarray:
        pictures.append(picture)
        if len(pictures) > 4:
            raise KeyboardInterrupt
        return preprocess(picture)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, preprocess=stopping)
    result = run(tmp_path)
    assert result.tables == whole.tables
    assert (tmp_path / RECORDS).read_bytes() == (whole.folder / RECORDS).read_bytes()


def test_a_line_cut_short_anywhere_is_made_again(whole: Evaluation, tmp_path: Path) -> None:
    lines = (whole.folder / RECORDS).read_bytes().splitlines(keepends=True)
    text = b"".join(lines)
    last = len(b"".join(lines[:16]))
    for name in ("manifest.json",):
        (tmp_path / name).write_bytes((whole.folder / name).read_bytes())
    for cut in (0, 1, last, last + 1, last + len(lines[16]) // 2, last + len(lines[16]) - 1):
        (tmp_path / RECORDS).write_bytes(text[:cut])
        result = run(tmp_path)
        assert result.tables == whole.tables
        stored = [json.loads(line) for line in (tmp_path / RECORDS).read_bytes().splitlines()]
        keys = [(line["picture"], line["label"], line["method"]) for line in stored]
        assert len(set(keys)) == len(keys) == 21


def test_damage_elsewhere_is_refused(whole: Evaluation, tmp_path: Path) -> None:
    for name in ("manifest.json", RECORDS):
        (tmp_path / name).write_bytes((whole.folder / name).read_bytes())
    with (tmp_path / RECORDS).open("r+b") as stream:
        stream.write(b"x")
    with pytest.raises(ResumeError, match="line 1: not a record"):
        run(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ResumeError, match=r"manifest\.json: Expected"):
        run(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ResumeError, match=r"Expected manifest\.json beside"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("seed", {"seed": 1}),
        ("tables", {"tables": (1,)}),
        ("limit", {"limit": 6}),
        ("images per class", {"images_per_class": 1}),
        (
            "options of smoothgrad",
            {"options": {"smoothgrad": {"samples": 3}, "dmbp": {"steps": 2}}},
        ),
        ("methods", {"methods": ("gradient",)}),
        ("points", {"points": 4}),
        ("activation", {"activation": "sigmoid"}),
        ("batch size", {"batch_size": 2}),
    ],
)
def test_other_settings_are_refused_by_name(
    whole: Evaluation, field: str, changes: dict[str, Any]
) -> None:
    before = (whole.folder / RECORDS).read_bytes()
    with pytest.raises(ResumeError, match=f"got {field} = ") as refusal:
        run(whole.folder, dataclasses.replace(SETTINGS, **changes))
    assert "--force" in str(refusal.value)
    assert (whole.folder / RECORDS).read_bytes() == before


def test_other_weights_and_pictures_are_refused(whole: Evaluation) -> None:
    with pytest.raises(ResumeError, match="got weights = "):
        run(whole.folder, params=make_params(1))
    with pytest.raises(ResumeError, match="got chosen targets = "):
        run(whole.folder, dataset=list_generated(seed=3, size=8))


def test_force_starts_over_and_spares_foreign_files(tmp_path: Path) -> None:
    settings = Settings(tables=(1,), methods=["gradient"], points=3, limit=2)
    run(tmp_path, settings)
    (tmp_path / "mine.txt").write_text("mine")
    result = run(tmp_path, dataclasses.replace(settings, limit=1), force=True)
    assert len(result.records) == 1
    assert len((tmp_path / RECORDS).read_text().splitlines()) == 1
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_folder_in_use_and_a_file_are_refused(tmp_path: Path) -> None:
    settings = Settings(tables=(1,), methods=["gradient"], points=3, limit=1)

    def nested(picture: Image.Image) -> np.ndarray:
        for force in (False, True):
            with pytest.raises(InputError, match="is being written to"):
                run(tmp_path / "out", settings, force=force)
        return preprocess(picture)

    pytest.importorskip("fcntl")
    run(tmp_path / "out", settings, preprocess=nested)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="got the file"):
        run(tmp_path / "file", settings)


def test_killed_at_random_moments_it_ends_with_the_same_table(tmp_path: Path) -> None:
    """`DMBP_KILLS=10` for ten kills; at least one of them hits a half-done evaluation."""
    rng = random.Random(os.environ.get("DMBP_KILLS_SEED", "0"))
    code = "import sys, pathlib, test_evaluate as t; t.run(pathlib.Path(sys.argv[1]), t.LONG)"
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # as here: other code rounds otherwise
    }
    start = partial(
        subprocess.Popen,
        [sys.executable, "-c", code, str(tmp_path / "killed")],
        cwd=Path(__file__).parent,
        env=environment,
    )
    out, records = tmp_path / "killed", tmp_path / "killed" / RECORDS
    expected = run(tmp_path / "whole", LONG)
    size = (tmp_path / "whole" / RECORDS).stat().st_size
    cuts = sorted(rng.randrange(size) for _ in range(KILLS))
    stops = []
    for cut in cuts:
        child = start()
        while child.poll() is None and not (records.exists() and records.stat().st_size > cut):
            time.sleep(0.0005)
        time.sleep(rng.random() * 0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()
        stops.append(records.stat().st_size)
    assert min(stops) < size, "no kill came before the end"
    with records.open("ab") as stream:  # and a line that a kill cut short
        stream.write(b'{"picture": "1/')
    assert start().wait() == 0
    result = run(out, LONG)
    assert result.tables == expected.tables
    for name in ("tables.md", "tables.csv", "evaluation.html"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    keys = [record.key for record in result.records]
    assert len(set(keys)) == len(keys) == len(expected.records)
    assert len(records.read_bytes().splitlines()) == len(keys)


# what it shows


class Page(HTMLParser):
    """Tags and attributes of a page, with every tag closed in its order."""

    VOID = ("meta", "img", "line", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_needs_nothing_else(whole: Evaluation) -> None:
    text = (whole.folder / "evaluation.html").read_text("utf-8")
    page = Page(text)
    names = {name for name, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object"}
    assert "http" not in re.sub(r"base64,[\w+/=]*", "", text)
    assert not any(attribute.startswith("on") for _, a in page.tags for attribute in a)
    assert len(page.all("svg")) == 2
    assert len(page.all("polyline")) == 6  # two measures, three methods
    for line in page.all("polyline"):
        points = [tuple(map(float, p.split(","))) for p in str(line["points"]).split()]
        assert len(points) == 5
    images = page.all("img")
    assert len(images) == 7 * (1 + 3)  # four best and three worst are all seven targets
    for attributes in images:
        data = str(attributes["src"]).removeprefix("data:image/png;base64,")
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
            assert picture.size == (SIDE, SIDE)
    for cell in (row.cells["im"] for row in whole.table(1).rows):
        assert f"<td>{cell.mean:.3f}</td>" in text


def test_gallery_pictures_are_of_the_right_map(whole: Evaluation) -> None:
    record = next(record for record in whole.records if record.method == "gradient")
    picture = next(p for p in list_generated(size=8) if p.name == record.picture)
    x = preprocess(picture.open())
    heat = METHODS["gradient"](make_params(), x, record.label, apply_fn=network).sum(-1)
    folder = folder_of(whole.folder, (record.picture, record.label))
    with Image.open(folder / "map-gradient.png") as kept:
        difference = np.asarray(kept.convert("RGB"), float) - np.asarray(diverging(heat), float)
    assert np.abs(difference).mean() < 6  # 64 colours
    with Image.open(folder / "picture.png") as kept:
        np.testing.assert_array_equal(np.asarray(kept), np.asarray(crop(picture.open())))


def test_only_pictures_at_the_ends_are_kept(tmp_path: Path) -> None:
    settings = Settings(
        tables=(1,), methods=["gradient"], points=3, batch_size=2, gallery=2, images_per_class=None
    )
    result = run(tmp_path, settings)
    records = {record.key: record for record in result.records}
    ranked = rank_targets(records, ["gradient"], "gradient")
    best, worst = ends(ranked, 2)
    kept = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert kept == {folder_of(tmp_path, target).name for target in [*best, *worst]}
    scores = {record.key[:2]: record.values["im"] for record in result.records}
    assert [scores[t] for t in best] == sorted(scores.values())[::-1][:2]
    assert [scores[t] for t in worst] == sorted(scores.values())[:2]


def test_pruning_a_part_never_drops_an_end_of_the_whole(tmp_path: Path) -> None:
    rng = random.Random(0)
    targets = [(str(i), 0) for i in range(20)]
    order = rng.sample(targets, 20)
    for target in targets:
        folder_of(tmp_path, target).mkdir(parents=True)
    for seen in range(1, 21):
        prune(tmp_path, [target for target in order if int(target[0]) < seen], 3)
    kept = {target for target in targets if folder_of(tmp_path, target).exists()}
    best, worst = ends(order, 3)
    assert kept == {*best, *worst}
    assert ends(order[:1], 3) == (order[:1], [])
    assert ends(order[:3], 3) == (order[:2], order[2:3])
    assert ends([], 3) == ([], [])


def test_text_and_csv_say_the_same(whole: Evaluation) -> None:
    text = (whole.folder / "tables.md").read_text("utf-8")
    assert text == str(whole)
    assert "| DMBP, all " in text and "≈ 0" in text
    with (whole.folder / "tables.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == sum(len(row.cells) for table in whole.tables for row in table.rows)
    for row in rows:
        cell = whole.table(int(row["table"])).cell(row["method"], row["measure"])
        assert float(row["mean"]) == cell.mean
        assert int(row["images"]) == cell.images
    assert {row["paper"] for row in rows} == {"", "≈ 0"}


def test_the_papers_numbers_stand_only_where_they_belong() -> None:
    assert paper_value(1, "im", "dmbp", "imagenet", "resnet50") == ".57"
    assert paper_value(1, "im", "gradient", "imagenet", "vgg16") == ".24"
    assert paper_value(2, "im", "gradient", "imagenet", "vgg16") == ".24"
    for elsewhere in [
        (1, "cim", "dmbp", "imagenet", "resnet50"),
        (1, "im", "dmbp", "generated", "builtin"),
        (1, "im", "dmbp", "voc", "resnet50_voc"),
        (2, "im", "dmbp", "imagenet", "resnet50"),
        (2, "im", "rise", "imagenet", "resnet50"),
        (3, "rank", "gradient", "imagenet", "resnet50"),
    ]:
        assert paper_value(*elsewhere) == "–"
    assert paper_value(3, "rank", "guided_backprop", "generated", "builtin") == ".99"


# mistakes


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"tables": (4,)}, InputError, "tables: Expected some of"),
        ({"tables": ()}, InputError, "tables: Expected"),
        ({"methods": ("magic",)}, InputError, "methods: Expected some of"),
        ({"methods": ("rise", "rise")}, InputError, "different methods"),
        ({"methods": ()}, InputError, "at least one"),
        ({"options": {"rise": {"mask": 3}}}, InputError, "option of rise .masks, cells"),
        ({"options": {"magic": {}}}, InputError, "Expected a method"),
        ({"options": {"dmbp": {"loss": "all"}}}, InputError, "option of dmbp"),
        ({"options": {"gradient": {"steps": 3}}}, InputError, "option of gradient"),
        ({"options": {"dmbp": {"steps": -1}}}, InputError, "steps: Expected at least 0"),
        ({"points": 3, "step": 3}, InputError, "got both"),
        ({"points": 1}, InputError, "points: Expected at least 2"),
        ({"limit": 0}, InputError, "limit: Expected at least 1"),
        ({"batch_size": 1.5}, InputTypeError, "batch_size: Expected an int"),
        ({"activation": "none"}, InputError, "activation: Expected"),
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
    assert not (tmp_path / RECORDS).exists()


def bad_pictures(folder: Path) -> list[str]:
    """Good and bad files, with their labels; names of the bad ones."""
    good = Image.fromarray(np.random.default_rng(0).integers(0, 255, (120, 100, 3), np.uint8))
    good.save(folder / "good.png")
    good.convert("CMYK").save(folder / "cmyk.jpg")
    good.save(folder / "animated.gif", save_all=True, append_images=[good.rotate(90)])
    good.save(folder / "whole.jpg")
    (folder / "corrupt.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:900])
    (folder / "empty.png").touch()
    (folder / "notes<i>.txt").write_text("not a picture")
    Image.new("1", (20000, 20000)).save(folder / "huge.png")
    rows = "".join(
        f"{path.name},{i % 3};{3 + i % 2}\n" for i, path in enumerate(sorted(folder.iterdir()))
    )
    (folder / "labels.csv").write_text("file,labels\n" + rows + "missing.png,1\n")
    return ["corrupt.jpg", "empty.png", "notes<i>.txt", "huge.png", "missing.png"]


def test_bad_files_are_named_and_the_exit_code_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMBP_HOME", str(tmp_path / "home"))
    photos = tmp_path / "photos"
    photos.mkdir()
    bad = bad_pictures(photos)
    out = tmp_path / "out"
    line = (
        f"evaluate --table 1 --dataset csv --root {photos} --network builtin --methods gradient "
        f"--points 3 --batch 2 -o {out} --quiet --no-compilation-cache"
    ).split()
    before = jax.config.jax_enable_compilation_cache
    try:
        assert main(line) == command.INCOMPLETE
        first = capsys.readouterr()
        assert main(line) == command.INCOMPLETE  # continued: nothing to do, but still incomplete
        second = capsys.readouterr()
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
    assert second == first
    assert "Table 1" in first.out and str(out / "evaluation.html") in first.out
    named = first.err.splitlines()
    assert len(named) == len(bad)
    reasons = {"corrupt.jpg": "truncated", "empty.png": "empty", "notes<i>.txt": "not a picture"}
    reasons |= {"huge.png": "too large", "missing.png": "no such file"}
    for name in bad:
        (found,) = [text for text in named if text.startswith(f"dmbp: {name}: ")]
        assert reasons[name] in found
    skipped = (out / "skipped.txt").read_text().splitlines()
    assert [f"dmbp: {text}" for text in skipped] == named
    page = (out / "evaluation.html").read_text()
    Page(page)
    assert "notes&lt;i&gt;.txt" in page and "notes<i>" not in page
    stored = [json.loads(text) for text in (out / RECORDS).read_text().splitlines()]
    assert {row["picture"] for row in stored} == {
        "good.png",
        "cmyk.jpg",
        "animated.gif",
        "whole.jpg",
    }


def test_without_a_single_good_picture(tmp_path: Path) -> None:
    dataset = Dataset(
        "photos",
        (FilePicture("gone.png", tmp_path / "gone.png", (1,)),),
        (Skipped("other.png", "no label"),),
    )
    with pytest.raises(DataError, match=r"one picture that can be read; other\.png: no label"):
        run(tmp_path / "out", dataset=dataset)


def test_the_commands_methods_are_those_of_the_library() -> None:
    assert command.METHODS == NAMES
    assert {str(table) for table in TABLES} | {"all"} == {"1", "2", "3", "all"}
    assert set(NAMES) == {*METHODS, "dmbp-positive", "dmbp-positive-negative"}
    assert TABLES[1].methods == ("gradient", "dmbp-positive", "dmbp-positive-negative", "dmbp")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--dataset voc --network vgg16_voc", "Expected --root"),
        ("--dataset imagenet --root x", "--network NAME"),
        ("--root x", "--root: Expected none"),
        ("--dataset voc --root x --network vgg16_voc --ground-truth y", "--ground-truth"),
        ("--option rise=3", "Expected METHOD.NAME=VALUE"),
        ("--option rise.masks=none", "masks: Expected an int"),
        ("--option rise.colour=3", "option of rise"),
        ("--methods gradient --points 1", "points: Expected at least 2"),
        ("--images-per-class some", "expected a number from 1 or all"),
        ("--images-per-class 0", "expected a number from 1 or all"),
        ("--limit 0", "limit: Expected at least 1"),
    ],
)
def test_a_wrong_command_is_one_line(
    line: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["evaluate", *line.split(), "-o", str(tmp_path), "--quiet", "--no-compilation-cache"]
    if "masks=none" in line:
        argv += ["--methods", "rise", "--limit", "1", "--points", "2"]
    before = jax.config.jax_enable_compilation_cache
    try:
        code = main(argv)
    except SystemExit as stop:
        code = stop.code
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
    err = capsys.readouterr().err
    assert code == 2
    assert words in err and err.count("\n") == 1


def test_options_of_the_command_line() -> None:
    from dmbp_jax.cli import build_parser

    line = "evaluate --option rise.masks=500 --option integrated_gradients.rule=trapezoid --steps 7"
    options = command.method_options(build_parser().parse_args(line.split()))
    assert options == {
        "rise": {"masks": 500},
        "integrated_gradients": {"rule": "trapezoid"},
        "dmbp": {"steps": 7},
    }
    rows = Settings(tables=(1, 2), options=options).contenders()
    assert [c.name for c in rows[1]] == list(TABLES[1].methods)
    assert all(dict(c.options)["config"].steps == 7 for c in rows[1][1:])
    assert dict(next(c for c in rows[2] if c.name == "rise").options) == {"masks": 500}
