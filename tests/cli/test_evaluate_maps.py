"""`dmbp evaluate --maps`: stored maps are scored like computed ones, and strange stores refused."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from small_runs import SIZE, contents, small_plan, tiny_network, write_pictures

from dmbp_jax import runs
from dmbp_jax.cli import main
from dmbp_jax.data import FilePicture, list_csv_folder
from dmbp_jax.errors import InputError, InputTypeError, ResumeError, StoreError
from dmbp_jax.experiments import Settings, evaluate, list_stored, open_maps
from dmbp_jax.metrics import insertion

NAME = "ND = gradient × input"
SETTINGS = {"tables": (2,), "points": 5, "batch_size": 4, "gallery": 1}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Seven pictures, and a run of gradient × input over them in float32."""
    folder = tmp_path_factory.mktemp("maps")
    plan = small_plan(
        write_pictures(folder / "in", 7), method="gradient", config=None, dtype="float32"
    )
    runs.run_local(plan, runs.Store(folder / "gradient.zarr"))
    return folder


@pytest.fixture
def command(monkeypatch, capsys):
    """`dmbp evaluate` with the tiny network: exit code, stdout and stderr."""
    monkeypatch.setattr("dmbp_jax.load", lambda name, *_: tiny_network())
    before = jax.config.jax_enable_compilation_cache

    def called(*argv: str) -> tuple[int, str, str]:
        options = ("--points", "5", "--quiet", "--weights", "own", "--no-compilation-cache")
        code = main(["evaluate", *map(str, argv), *options])
        return code, *capsys.readouterr()

    yield called
    jax.config.update("jax_enable_compilation_cache", before)


def inputs_of(folder: Path) -> np.ndarray:
    return np.stack([tiny_network().preprocess(path) for path in sorted(folder.iterdir())])


def test_stored_maps_score_as_the_computed_ones(stored, tmp_path):
    row = open_maps(stored / "gradient.zarr")
    assert row.name == "gradient@gradient.zarr"
    settings = Settings(methods=[row, "gradient"], **SETTINGS)
    result = evaluate(tiny_network(), list_stored(row), tmp_path / "out", settings)
    table = result.table(2)
    assert [row.title for row in table.rows] == [f"{NAME} (gradient.zarr)", NAME]
    ours, computed = (table.cell(name, "im") for name in (row.name, "gradient"))
    assert ours.images == computed.images == 7
    assert ours.mean == pytest.approx(computed.mean, abs=1e-6)
    before = contents(tmp_path / "out")
    assert evaluate(tiny_network(), list_stored(row), tmp_path / "out", settings).skipped == ()
    assert contents(tmp_path / "out") == before


def test_maps_of_another_tool_are_scored(stored, tmp_path):
    """NumPy maps with two colours of label, against the metric called by hand."""
    maps = np.random.default_rng(0).normal(size=(7, SIZE, SIZE, 3)).astype(np.float32)
    store = runs.Store(tmp_path / "mine.zarr")
    run = runs.store_maps(
        store, maps, stored / "in", 1, network=tiny_network(), method="mine", shard_size=3
    )
    assert run.verify() == []
    np.testing.assert_array_equal(run.maps("map")["004.png"], maps[4])
    row = open_maps(tmp_path / "mine.zarr")
    settings = Settings(methods=[row], **SETTINGS)
    result = evaluate(tiny_network(), list_stored(row), tmp_path / "out", settings)
    x = inputs_of(stored / "in")
    expected = insertion(tiny_network(), x, np.ones(7, np.int32), maps.sum(-1), points=5).auc
    assert [record.values["im"] for record in result.records] == pytest.approx(
        np.asarray(expected).tolist(), abs=1e-6
    )
    page = runs.write_report(run, tmp_path / "page.html").read_text("utf-8")
    assert "mine on tiny" in page and "7 shown below" in page


def test_storing_goes_on_and_never_leaves_other_maps(stored, tmp_path):
    maps = np.random.default_rng(0).normal(size=(7, SIZE, SIZE)).astype(np.float32)
    maps[2, 0, 0] = np.inf
    arguments = {"network": tiny_network(), "method": "mine", "shard_size": 3}
    store = runs.Store(tmp_path / "mine.zarr")
    run = runs.store_maps(store, maps, stored / "in", "red", **arguments)
    assert [row["status"] for row in run.rows].count("failed") == 1
    whole = contents(tmp_path / "mine.zarr")
    store.delete("commits/00000001.jsonl")
    runs.store_maps(store, maps, stored / "in", "red", **arguments)
    assert contents(tmp_path / "mine.zarr") == whole
    maps[6] += 1
    with pytest.raises(ResumeError, match="Expected these maps in shard 2"):
        runs.store_maps(store, maps, stored / "in", "red", **arguments)
    for wrong, words in [
        ((maps[:5], stored / "in", 0), r"maps: Expected shape \(7, 16, 16\), got \(5, 16, 16\)"),
        ((maps[:, :8], stored / "in", 0), r"got \(7, 8, 16\)"),
        ((maps[0], stored / "in", 0), "maps: Expected shape"),
        ((maps, stored / "in", None), "labels: Expected a label for every map, got none for 000"),
    ]:
        with pytest.raises(InputError, match=words):
            runs.store_maps(runs.Store(tmp_path / "new"), *wrong, **arguments)
    assert not (tmp_path / "new").exists()


def test_the_command_scores_a_store(stored, tmp_path, command):
    out = tmp_path / "out"
    code, text, err = command(
        "--maps", stored / "gradient.zarr", "--methods", "gradient", "-o", out
    )
    assert (code, err) == (0, "")
    assert "Table 2" in text and f"{NAME} (gradient.zarr)" in text
    cells = [line.split("|")[2:4] for line in text.splitlines() if line.startswith("| ND")]
    assert cells[0] == cells[1]
    table = tmp_path / "in.csv"
    for row in runs.open(stored / "gradient.zarr").rows:
        with table.open("a") as file:
            file.write("" if table.stat().st_size else "file,labels\n")
            file.write(f"{row['file']},{row['label']}\n")
    line = ("--dataset", "csv", "--root", stored / "in", "--labels", table)
    network = ("--network", "tiny", "-o", tmp_path / "csv")
    code, same, _ = command("--maps", stored / "gradient.zarr", *line, *network)
    assert code == 0
    (row,) = [line for line in same.splitlines() if "(gradient" in line]
    assert row.split("|")[2:4] == cells[0]


def test_failed_rows_are_named_and_the_exit_code_says_so(tmp_path, command):
    write_pictures(tmp_path / "in", 5)
    (tmp_path / "in" / "003.png").write_bytes(b"no picture")
    runs.run_local(small_plan(tmp_path / "in"), runs.Store(tmp_path / "maps"))
    code, out, err = command("--maps", tmp_path / "maps", "-o", tmp_path / "out")
    assert code == 1
    assert err.startswith("dmbp: 003.png: not a picture") and err.count("\n") == 1
    assert "DMBP (maps)" in out
    maps = np.random.default_rng(0).normal(size=(5, SIZE, SIZE))
    maps[1] = np.nan
    write_pictures(tmp_path / "in", 5)
    runs.store_maps(
        runs.Store(tmp_path / "mine"),
        maps,
        tmp_path / "in",
        0,
        network=tiny_network(),
        method="mine",
    )
    (tmp_path / "labels.csv").write_text("file,labels\n000.png,0\n001.png,0\n")
    dataset = list_csv_folder(tmp_path / "in", tmp_path / "labels.csv")
    settings = Settings(methods=[open_maps(tmp_path / "mine")], **SETTINGS)
    result = evaluate(tiny_network(), dataset, tmp_path / "given", settings)
    reasons = dict(result.skipped)
    assert reasons["001.png"] == "mine (mine): the map has numbers that are not finite"
    assert result.table(2).cell("mine@mine", "im").images == 1


def test_a_picture_that_has_changed_is_not_scored_with_its_old_map(tmp_path, command):
    """In its place, or in another folder: its row is left out by name, and so is a computed one."""
    runs.run_local(small_plan(write_pictures(tmp_path / "in", 5)), runs.Store(tmp_path / "maps"))
    write_pictures(tmp_path / "moved", 5)
    (tmp_path / "moved" / "002.png").write_bytes((tmp_path / "in" / "003.png").read_bytes())
    line = ("--maps", tmp_path / "maps", "--methods", "gradient", "-o", tmp_path / "out")
    code, out, err = command(*line, "--root", tmp_path / "moved")
    assert code == 1
    assert err == "dmbp: 002.png: another picture than DMBP (maps) has a map of.\n"
    assert [line.split("|")[4].strip() for line in out.splitlines() if "ND" in line] == ["4"]


def test_what_does_not_fit_is_refused(stored, tmp_path, command):
    row = open_maps(stored / "gradient.zarr")
    dataset = list_stored(row)
    settings = Settings(methods=[row], **SETTINGS)
    with pytest.raises(InputError, match="got another weights: stored"):
        evaluate(tiny_network(seed=1), dataset, tmp_path / "out", settings)
    with pytest.raises(InputTypeError, match="params: Expected a Network with stored maps"):
        evaluate({}, dataset, tmp_path / "out", settings, apply_fn=len, preprocess=len)
    with pytest.raises(InputError, match="Expected 1 or 2 with stored maps"):
        Settings(methods=[row], tables=(3,))
    other = FilePicture("dog.png", stored / "in" / "000.png", (0,))
    strange = dataclasses.replace(dataset, pictures=(*dataset.pictures, other))
    with pytest.raises(InputError, match=r"got none of 1, the first dog\.png with label"):
        evaluate(tiny_network(), strange, tmp_path / "out", settings)
    small = dataclasses.replace(row, run=SmallMaps(row.run))
    with pytest.raises(InputError, match=r"Expected maps of \(16, 16\), got \(8, 8\)"):
        evaluate(tiny_network(), dataset, tmp_path / "out2", Settings(methods=[small], **SETTINGS))
    assert not (tmp_path / "out").exists()
    code, _, err = command("--maps", tmp_path, "-o", tmp_path / "out")
    assert code == 2
    assert "Expected a store of dmbp run, got none" in err and err.count("\n") == 1
    code, _, err = command("--maps", stored / "gradient.zarr", "--table", "3", "-o", tmp_path / "o")
    assert (code, err.count("\n")) == (2, 1)


class SmallMaps:
    """A run whose maps have been stored in another size than its manifest says."""

    def __init__(self, run: runs.Run) -> None:
        self.configuration = run.configuration

    def heatmap(self, row: int) -> np.ndarray:
        return np.zeros((8, 8), np.float32)


def test_a_run_that_is_not_finished_or_has_half_of_the_map_is_refused(stored, tmp_path):
    plan = small_plan(stored / "in", save="positive")
    store = runs.Store(tmp_path / "half")
    runs.run_local(plan, store)
    with pytest.raises(InputError, match="Expected heatmap, map, or positive and negative"):
        open_maps(tmp_path / "half")
    both = runs.Store(tmp_path / "both")
    runs.run_local(small_plan(stored / "in", save="positive,negative"), both)
    run = runs.open(tmp_path / "both")
    expected = (run.maps("positive")[3] + run.maps("negative")[3]).sum(-1)
    np.testing.assert_allclose(run.heatmap(3), expected, rtol=1e-5, atol=1e-6)
    assert len(open_maps(tmp_path / "both").places) == 7
    both.delete("commits/00000001.jsonl")
    with pytest.raises(InputError, match="Expected a finished run, 3 rows are to do"):
        open_maps(tmp_path / "both")
    with pytest.raises(StoreError):
        open_maps(tmp_path / "nothing")
