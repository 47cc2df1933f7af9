"""What `evaluate` shows: the page, its gallery, and the tables as text and CSV."""

import base64
import csv
import io
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_evaluation import SIDE, crop, make_params, network, preprocess, run

from dmbp_jax.data import list_generated
from dmbp_jax.experiments import Evaluation, Settings
from dmbp_jax.experiments.page import choose_ends, keep_ends, picture_name
from dmbp_jax.experiments.results import OWN
from dmbp_jax.methods import METHODS
from dmbp_jax.pictures import diverging


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """An uninterrupted evaluation."""
    return run(tmp_path_factory.mktemp("whole"))


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
    target = (record.picture, record.label)
    with Image.open(whole.folder / OWN / picture_name(target, "gradient")) as kept:
        difference = np.asarray(kept.convert("RGB"), float) - np.asarray(diverging(heat), float)
    assert np.abs(difference).mean() < 6  # 64 colours
    with Image.open(whole.folder / OWN / picture_name(target)) as kept:
        np.testing.assert_array_equal(np.asarray(kept), np.asarray(crop(picture.open())))


def test_only_pictures_at_the_ends_are_kept(tmp_path: Path) -> None:
    settings = Settings(
        tables=(1,), methods=["gradient"], points=3, batch_size=2, gallery=2, images_per_class="all"
    )
    result = run(tmp_path, settings)
    scores = {record.key[:2]: record.values["im"] for record in result.records}
    best, worst = choose_ends(scores, 2)
    own = tmp_path / OWN
    kept = {path.parent for path in own.glob("pictures/*/*")}
    assert kept == {(own / picture_name(target)).parent for target in [*best, *worst]}
    assert {path.parent for path in own.glob("pictures/*/")} == {own / "pictures"}
    assert len(list(own.glob("pictures/*/"))) == 4
    assert [scores[t] for t in best] == sorted(scores.values())[::-1][:2]
    assert [scores[t] for t in worst] == sorted(scores.values())[:2]


@pytest.mark.parametrize("count", [0, 1, 3, 20])
def test_the_ends_of_any_part_are_those_of_all_its_targets(count: int, tmp_path: Path) -> None:
    """Batch by batch, with the scores of the ends alone: what is dropped never comes back."""
    rng = random.Random(count)
    scores = {(str(i), 0): rng.random() for i in range(20)} | {("none", 0): float("nan")}
    order = list(scores)
    rng.shuffle(order)
    kept: dict[Any, float] = {}
    folder: Any = SimpleNamespace(own=tmp_path)
    for i, target in enumerate(order, start=1):
        (tmp_path / picture_name(target)).parent.mkdir(parents=True)
        kept[target] = scores[target]
        best, worst = keep_ends(folder, kept, count)
        known = [one for one in order[:i] if one != ("none", 0)]
        ranked = sorted(known, key=lambda target: -scores[target])
        half = -(-len(ranked) // 2)
        assert best == ranked[: min(count, half)]
        assert worst == ranked[half:][::-1][:count]
        assert set(kept) == {*best, *worst}
        left = {path.name for path in (tmp_path / "pictures").iterdir()}
        assert left == {(tmp_path / picture_name(one)).parent.name for one in kept}


def test_text_and_csv_say_the_same(whole: Evaluation) -> None:
    text = (whole.folder / "tables.md").read_text("utf-8")
    assert text == str(whole)
    assert "| DMBP, all " in text
    with (whole.folder / "tables.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == sum(len(row.cells) for table in whole.tables for row in table.rows)
    for row in rows:
        cell = whole.table(int(row["table"])).cell(row["method"], row["measure"])
        assert float(row["mean"]) == cell.mean
        assert (row["standard_error"] == "") == (row["measure"] == "avg")
        assert int(row["images"]) == cell.images
    assert {row["paper"] for row in rows} == {""}  # the paper has no such network
