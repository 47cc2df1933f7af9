"""The study of faithfulness: rows by name, costs, paired differences, and one small run."""

import argparse
import json

import numpy as np
import pytest

from benchmarks.faithfulness import caltech
from benchmarks.faithfulness.faithfulness import lattice, main
from benchmarks.faithfulness.faithfulness_cases import count_passes, make_case, parse_row
from benchmarks.faithfulness.faithfulness_tables import tables
from dmbp_jax import DMBP
from dmbp_jax.data.generated import rival

pytestmark = pytest.mark.slow


def test_rows_are_configs():
    assert parse_row("gradient") is None
    assert parse_row("quick") == (DMBP.quick(), "drop")
    assert parse_row("paper:spread") == (DMBP(), "spread")
    assert parse_row("paper:carry") == (DMBP(), "carry")
    config, biases = parse_row("quick:steps=4,evidence=input,spread")
    assert (config, biases) == (DMBP.quick(steps=4, evidence="input"), "spread")


@pytest.mark.parametrize(
    "row", ["slow", "gradient:spread", "quick:speed=3", "quick:steps=-1", "rise:speed=3"]
)
def test_unknown_rows_are_refused(row):
    with pytest.raises(argparse.ArgumentTypeError, match=row.partition(":")[0]):
        parse_row(row)


def test_passes_are_three_a_step_and_six():
    assert count_passes("quick") == 27
    assert count_passes("quick:spread") == 25
    assert count_passes("quick:carry") == 29
    assert count_passes("quick:refine") == 27
    assert count_passes("paper") == 606
    assert count_passes("gradient") == 2
    assert count_passes("rise:n_masks=50") == 50
    assert count_passes("lpr:steps=2") == 15


def test_halves_share_no_picture_and_have_every_class():
    halves = [make_case("builtin", half, None, None) for half in ("choose", "report")]
    assert not set(halves[0].names) & set(halves[1].names)
    for case in halves:
        assert sorted(set(case.labels.tolist())) == list(range(10))
        assert case.others.tolist() == [rival(int(label)) for label in case.labels]
        assert not (case.objects & case.rivals).any()
        assert case.objects.any((1, 2)).all() and case.rivals.any((1, 2)).all()
    assert make_case("deep", "report", 1, None) is None


def test_table_by_hand():
    def record(pictures, values):
        numbers = {"IM": values, "carried+": values}
        return {"pictures": pictures, "points": 9, "passes": 2, "seconds": 0.5, "numbers": numbers}

    rows = {
        "gradient": record(["a", "b", "c"], [0.1, 0.2, 0.9]),
        "quick": record(["b", "a"], [0.6, 0.3]),
        "quick:steps=9": record(["b", "a"], [0.2, 0.1]),
        "quick:spread": record(["b", "a"], [0.2, 0.1]),
        "paper:spread": record(["b", "a"], [0.2, 0.1]),
    }
    # Ranks 1 2 3 4 against 1 2 4 3 and against themselves: correlations 0.8 and 1.
    maps = np.array([[[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 4.0]]])
    other = np.array([[[1.0, 2.0], [4.0, 3.0]], [[1.0, 2.0], [3.0, 4.0]]])
    negatives = {"gradient": None, "quick": maps, "quick:steps=9": other}
    negatives |= {"quick:spread": other, "paper:spread": other}
    text = tables("T", rows, negatives)
    # Differences .4 and .2: mean .3, standard deviation .1414, over √2.
    assert "| `DMBP.quick()` | 0.450 | +0.300 ± 0.100 |" in text
    # Complete maps are compared with complete maps.
    assert "| `DMBP.quick(steps=9)` | 0.15 | 0.90 | 2 | 0.5 |" in text
    assert "| `DMBP.quick()`, biases spread | 0.15 |  | 2 | 0.5 |" in text
    assert "| `DMBP.paper()`, biases spread | 0.15 | 1.00 | 2 | 0.5 |" in text
    assert "### T: 2 or 3 pictures, 9 points" in text


def test_a_run_is_kept_and_continued(tmp_path, capsys):
    call = ["--out", str(tmp_path), "--networks", "builtin", "--limit", "2", "--points", "5"]
    main([*call, "--rows", "gradient"])
    main([*call, "--rows", "gradient", "quick:steps=1"])
    out = capsys.readouterr().out
    assert out.count("report/gradient: measured") == 1
    lines = [json.loads(line) for line in (tmp_path / "builtin.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == 2 * ["gradient"] + 2 * ["quick:steps=1"]
    expected = "IM", "IM blur", "IM mean", "deletion", "cIM", "pointing", "inside", "rival"
    for name in (*expected, "carried+", "carried-", "nuisance"):
        assert all(np.isfinite(line["numbers"][name]) for line in lines[2:])
    assert "carried-" not in lines[0]["numbers"]
    assert "| `DMBP.quick(steps=1)` |" in out


def test_table_3_is_measured_on_request(tmp_path, capsys):
    call = ["--out", str(tmp_path), "--networks", "builtin", "--limit", "2", "--points", "5"]
    call += ["--rows", "gradient"]
    main([*call, "--redraws", "1"])
    main(call)  # what has more than is asked for is kept
    assert capsys.readouterr().out.count("report/gradient: measured") == 1
    for line in map(json.loads, (tmp_path / "builtin.jsonl").read_text().splitlines()):
        signed, absolute = (line["numbers"][name] for name in ("re-drawn", "re-drawn, |h|"))
        assert signed != absolute and max(abs(signed), abs(absolute)) <= 1


def test_fewer_photos_are_among_the_more_and_lie_evenly():
    few, many = caltech.spread(75, 8), caltech.spread(75, 60)
    assert many[:8] == few and len(set(many)) == 60 and max(many) < 75
    assert max(np.diff(sorted(few))) <= 16


def test_dots_are_a_lattice_and_noise_is_not(rng):
    dots = np.zeros((1, 64, 64))
    dots[:, ::16, ::16] = 1.0
    noise = rng.normal(size=(1, 64, 64))
    assert lattice(dots)[0] == pytest.approx(1.0)
    assert lattice(noise)[0] == pytest.approx((16 / 64) ** 2, rel=0.5)


@pytest.mark.skipif(not caltech.have("resnet50"), reason="weights and photos are absent")
def test_a_mosaic_has_both_labels_and_knows_where():
    found = caltech.mosaics("resnet50", 0, 2, 1)
    assert found.x.shape == (2, 224, 224, 3) and (found.x[0] == found.x[1]).all()
    assert found.labels.tolist() == found.others[::-1].tolist()
    assert (found.own[0] == ~found.own[1]).all() and found.own.mean() == 0.5
    top = np.argsort(-found.apply_fn(found.params, found.x[:1])[0])[:3]
    assert set(found.labels.tolist()) <= set(top.tolist())
