"""The report of a large run: which rows it shows, and that the page stands alone."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from small_runs import small_plan, write_pictures

from dmbp_jax import runs
from dmbp_jax.errors import InputError
from dmbp_jax.runs.report import NUMBERS, choose, histogram, survey


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A run of nine rows: one failed, two whose shard is not done."""
    folder = tmp_path_factory.mktemp("report")
    write_pictures(folder / "in", 9)
    (folder / "in" / "002.png").rename(folder / "in" / "002<b>.png")
    (folder / "in" / "003.png").write_bytes(b"<script>")
    runs.run_local(small_plan(folder / "in"), runs.Store(folder / "out"))
    runs.Store(folder / "out").delete("commits/00000002.jsonl")
    return folder


def page_of(stored, name="page.html", **options):
    text = runs.write_report(runs.open(stored / "out"), stored / name, **options).read_text("utf-8")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return text, json.loads(data[1].replace("<\\/", "</"))


def test_the_page_needs_nothing_else(stored):
    text, cards = page_of(stored)
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert not re.findall(r"https?://|@import|url\(", text)
    assert "{{" not in text
    assert len(cards) == 7
    assert text.count('class="histogram"') == len(NUMBERS)
    assert "9 rows, 8 done; 1 failed; 7 shown below." in text
    assert 'name="viewport"' in text


def test_cards_hold_what_was_stored(stored):
    _, cards = page_of(stored)
    rows = {row["file"]: row for row in runs.open(stored / "out").rows if row["status"] == "ok"}
    assert {card["file"] for card in cards} == set(rows)
    for card in cards:
        row = rows[card["file"]]
        assert all(card[name] == row[name] for name in NUMBERS)
        assert card["class"] == ("red", "green", "blue")[row["label"]]
        for name in ("picture", "map"):
            data = base64.b64decode(card[name].removeprefix("data:image/webp;base64,"))
            assert Image.open(io.BytesIO(data)).size == (96, 96)
            assert len(data) < 8000


def test_names_and_reasons_are_escaped(stored):
    text, cards = page_of(stored)
    assert "002<b>.png" in {card["file"] for card in cards}
    body = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert "<b>.png" not in body
    assert "003.png</td><td>not a picture" in body


def test_pictures_that_are_gone_leave_their_maps(stored, tmp_path):
    _, cards = page_of(stored, "moved.html", images=tmp_path)
    assert all(card["picture"] is None and card["map"] for card in cards)
    with pytest.raises(InputError, match="images: Expected a folder, got"):
        page_of(stored, "nowhere.html", images=tmp_path / "nowhere")


def test_fewer_rows_than_there_are(stored):
    _, cards = page_of(stored, "few.html", most=6)
    assert len(cards) == 6
    with pytest.raises(InputError, match="most"):
        page_of(stored, "none.html", most=0)


def test_the_ends_of_every_number_are_chosen(rng):
    numbers = {name: rng.normal(size=5000).astype(np.float32) for name in NUMBERS}
    done = np.arange(5000) >= 100  # the others failed
    numbers["probability"][~done] = np.nan
    chosen = choose(numbers, done, 400)
    assert len(chosen) == 400
    assert list(chosen) == sorted(chosen)
    assert min(chosen) >= 100
    for name, title in [("y", "y"), ("y_nuisance", "ỹ"), ("probability", "probability")]:
        order = 100 + np.argsort(numbers[name][100:])
        assert chosen[order[0]].startswith("smallest")
        assert chosen[order[-1]].startswith("largest")
        assert sum(why == f"smallest {title}" for why in chosen.values()) == 33
    assert sum(why == "random" for why in chosen.values()) == 400 - 6 * 33
    assert choose(numbers, done, 400) == chosen
    assert choose(numbers, done, 400, seed=1) != chosen
    assert set(choose(numbers, done, 4900).values()) == {"all"}


def test_a_method_without_terms_is_chosen_by_what_it_has(rng):
    numbers = {name: np.full(100, np.nan, np.float32) for name in NUMBERS}
    numbers["y"] = numbers["probability"] = rng.normal(size=100).astype(np.float32)
    assert len(choose(numbers, np.ones(100, bool), 20)) == 20
    assert histogram("ỹ", numbers["y_nuisance"]) == ""


def test_a_survey_counts_everything():
    ok = {"status": "ok", **dict.fromkeys(NUMBERS, 1.5), "y_positive": None}
    bad = {"status": "failed", "file": "a", "error": "why"}
    overview = survey([ok, bad, bad, {"status": "missing"}], 4, most=1)
    assert (overview.failed, overview.missing, overview.failures) == (2, 1, (("a", "why"),))
    assert overview.numbers["y"].tolist()[0] == 1.5
    assert np.isnan(overview.numbers["y_positive"]).all()


def test_heights_of_a_histogram_are_counts(rng):
    values = rng.normal(size=3000).astype(np.float32)
    low, high = np.sort(values)[3], np.sort(values)[-4]  # about the 0.1 and the 99.9 percentile
    counts = [0] * 40
    for value in values.tolist():
        share = (min(max(value, low), high) - low) / (high - low)
        counts[min(int(40 * share), 39)] += 1
    bars = [float(h) for h in re.findall(r'width="6" height="([\d.]+)"', histogram("y", values))]
    expected = 80 * np.array(counts) / max(counts)
    np.testing.assert_allclose(bars, expected, atol=80 * 3 / max(counts))
    assert "mean 3" in histogram("y", np.full(3, 3, np.float32))
