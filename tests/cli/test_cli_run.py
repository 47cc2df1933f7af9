"""`dmbp run`, `dmbp verify` and `dmbp report`: exit codes, one line for each mistake, going on."""

import importlib
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest
from PIL import Image
from small_runs import contents, overflowing_network, tiny_network, write_pictures

from dmbp_jax import runs
from dmbp_jax.cli import main
from dmbp_jax.cli import run as command
from dmbp_jax.cli.settings import make_config
from dmbp_jax.dmbp.config import DMBP
from dmbp_jax.errors import StoreFullError
from dmbp_jax.runs.plan import DTYPES, SHARD_SIZE


@pytest.fixture(autouse=True)
def as_before(monkeypatch, tmp_path):
    """The tiny network under a known name, and the settings of the process afterwards."""
    monkeypatch.setattr("dmbp_jax.networks.load.load", lambda name, *_: tiny_network())
    monkeypatch.chdir(tmp_path)
    names = ("jax_compilation_cache_dir", "jax_enable_compilation_cache")
    before = {name: getattr(jax.config, name) for name in names}
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
    for name, value in before.items():
        jax.config.update(name, value)


SMALL = ("--steps", "2", "--shard-size", "4", "--quiet", "--no-compilation-cache")


def called(capsys, *argv: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    try:
        code = main(argv)
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


def test_all_done_is_0_and_the_same_command_does_nothing_more(capsys, tmp_path):
    write_pictures(tmp_path / "in", 6)
    code, out, err = called(capsys, "run", "in", "-o", "maps.zarr", *SMALL)
    assert (code, err) == (0, "")
    assert out == "maps.zarr: 6 rows in 2 shards done, 0 failed\n"
    before = contents(tmp_path / "maps.zarr")
    assert called(capsys, "run", "in", "-o", "maps.zarr", *SMALL) == (0, out, "")
    assert contents(tmp_path / "maps.zarr") == before
    assert runs.open("maps.zarr").rows[5]["file"] == "005.png"


def test_failed_images_are_1_and_named_each_time(capsys, tmp_path):
    write_pictures(tmp_path / "in", 6)
    (tmp_path / "in" / "004.png").write_bytes(b"no picture")
    for _ in range(2):
        code, out, err = called(capsys, "run", "in", "-o", "maps.zarr", *SMALL)
        assert code == 1
        assert out.endswith("6 rows in 2 shards done, 1 failed\n")
        assert err.startswith("dmbp: 004.png: not a picture")
        assert err.count("\n") == 1


def test_each_kind_of_failed_image_is_one_line(capsys, tmp_path, monkeypatch):
    """A picture that vanishes after it was listed, a corrupt one, one on which numbers overflow."""
    folder = write_pictures(tmp_path / "in", 6)
    data = (folder / "002.png").read_bytes()
    (folder / "002.png").write_bytes(data[: len(data) // 2])
    Image.new("RGB", (20, 20), "white").save(folder / "003.png")
    make_plan = command.make_plan

    def vanishing(args):
        plan = make_plan(args)
        (folder / "001.png").unlink()
        return plan

    monkeypatch.setattr("dmbp_jax.networks.load.load", lambda *_: overflowing_network())
    monkeypatch.setattr(command, "make_plan", vanishing)
    code, out, err = called(capsys, "run", "in", "-o", "maps.zarr", *SMALL)
    assert (code, out) == (1, "maps.zarr: 6 rows in 2 shards done, 3 failed\n")
    vanished, corrupt, overflow = err.splitlines()
    assert vanished == "dmbp: 001.png: no such file."
    assert corrupt.startswith("dmbp: 002.png: ") and "truncated" in corrupt
    assert overflow == "dmbp: 003.png: the network's numbers overflow on this picture"
    run = runs.open("maps.zarr")
    assert [row["status"] == "ok" for row in run.rows] == [True, False, False, False, True, True]
    assert run.verify() == []


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["nothing", "-o", "out"], "images: Expected pictures, got 'nothing'"),
        (["in"], "-o/--output"),
        (["in", "-o", "out", "--label", "purple"], "purple"),
        (["in", "-o", "out", "--label", "7"], "label: Expected 0 <= label < 3, got 7"),
        (["in", "-o", "out", "--labels", "none.csv"], "none.csv"),
        (["in", "-o", "out", "--label", "1", "--labels", "a.csv"], "not allowed with"),
        (["in", "-o", "out", "--save", "sum"], "save: Expected one of"),
        (["in", "-o", "out", "--steps", "-1"], "steps: Expected at least 0"),
        (["in", "-o", "out", "--shard-size", "0"], "shard_size"),
        (["in", "-o", "out", "--method", "gradient", "--quick"], "--quick"),
        (["in", "-o", "out", "--quick", "--steps", "3"], "not allowed with"),
        (["in", "-o", "out", "--shards", "3/3"], "--shards: Expected i/n"),
        (["in", "-o", "out", "--workers", "2"], "--workers: Expected only with --engine ray"),
        (["in", "-o", "out", "--batch-size", "0"], "--batch-size: Expected at least 1"),
        (["in", "-o", "ftp://host/out"], "store: Expected a path, s3://"),
        (["in", "-o", "in"], "in: Expected an empty folder or a store of dmbp run"),
        (["in", "-o", "in/000.png"], "Expected a folder, got a file"),
    ],
)
def test_bad_input_is_2_in_one_line_and_nothing_starts(capsys, tmp_path, argv, words):
    write_pictures(tmp_path / "in", 2)
    before = contents(tmp_path)
    code, out, err = called(capsys, "run", *argv)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert contents(tmp_path) == before


def test_another_setting_is_refused_by_name(capsys, tmp_path):
    write_pictures(tmp_path / "in", 2)
    called(capsys, "run", "in", "-o", "out", *SMALL)
    code, _, err = called(capsys, "run", "in", "-o", "out", *SMALL, "--label", "1")
    assert code == 2
    assert "another labels: stored" in err


def test_a_full_store_says_how_to_go_on(capsys, tmp_path, monkeypatch):
    write_pictures(tmp_path / "in", 2)

    def full(*_, **__):
        raise StoreFullError("out: no space is left; free some.")

    monkeypatch.setattr(importlib.import_module("dmbp_jax.runs.local"), "run_local", full)
    code, _, err = called(capsys, "run", "in", "-o", "out", *SMALL)
    assert code == 2
    assert err == (
        "dmbp: out: no space is left; free some. The same command goes on where it stopped.\n"
    )


def test_an_interrupted_run_is_130_and_says_how_to_go_on(capsys, tmp_path, monkeypatch):
    write_pictures(tmp_path / "in", 12)
    worker = importlib.import_module("dmbp_jax.runs.worker").Worker
    process, calls = worker.process_shard, []

    def interrupted(self, *args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return process(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(worker, "process_shard", interrupted)
        code, out, err = called(capsys, "run", "in", "-o", "out", *SMALL)
    assert (code, out) == (130, "")
    assert err == (
        "dmbp: interrupted; 1 of 3 shards are done; the same command goes on where it stopped\n"
    )
    code, out, _ = called(capsys, "run", "in", "-o", "out", *SMALL)
    assert (code, out) == (0, "out: 12 rows in 3 shards done, 0 failed\n")


def test_verify_names_damage_and_the_run_repairs_it(capsys, tmp_path):
    write_pictures(tmp_path / "in", 6)
    called(capsys, "run", "in", "-o", "out", *SMALL)
    whole = contents(tmp_path / "out")
    assert called(capsys, "verify", "out") == (
        0,
        "out: 0 of 2 shards differ; all rows are done\n",
        "",
    )
    (tmp_path / "out/heatmap/c/1/0/0").write_bytes(b"other")
    code, out, err = called(capsys, "verify", "out", "--dry-run")
    assert (code, out) == (1, "out: 1 of 2 shards differ; all rows are done\n")
    assert err.startswith("dmbp: shard 1: heatmap/c/1/0/0 has 5 bytes")
    code, out, _ = called(capsys, "verify", "out")
    assert (code, out) == (1, "out: 1 of 2 shards differ; 2 of 6 rows are to do\n")
    assert called(capsys, "run", "in", "-o", "out", *SMALL)[0] == 0
    assert contents(tmp_path / "out") == whole
    code, _, err = called(capsys, "verify", "nothing")
    assert code == 2
    assert "Expected a store of dmbp run, got none" in err


def test_no_damage_of_a_store_passes_for_a_result(capsys, tmp_path):
    write_pictures(tmp_path / "in", 2)
    called(capsys, "run", "in", "-o", "out", *SMALL)
    whole = contents(tmp_path / "out")
    for key in whole:
        path = tmp_path / "out" / key
        data = path.read_bytes()
        cut = data.rstrip().rpartition(b"\n")[0] or data[:-5]  # of a text its last line
        for damaged in (cut, data[:-9] + b"x" + data[-8:], b"[" * 100_000, None):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            if "commits" not in key or damaged is not None:  # without a record a shard is to do
                code, _, err = called(capsys, "verify", "out", "--dry-run")
                assert (code, err.count("\n")) in ((1, 1), (2, 1)), (key, err)
            code, _, err = called(capsys, "report", "out", "-o", "page.html", "--force")
            assert (code, err.count("\n")) in ((0, 0), (2, 1)), (key, err)
            assert "Traceback" not in err
        if key != "manifest.json":  # what describes the maps is written anew
            assert called(capsys, "run", "in", "-o", "out", *SMALL)[0] == 0
        path.write_bytes(data)
    assert contents(tmp_path / "out") == whole
    (tmp_path / "out/commits/._00000000.jsonl").write_bytes(b"of another file system")
    (tmp_path / "out/commits/\udcff.jsonl").write_bytes(b"")
    assert called(capsys, "verify", "out")[0] == 0


def test_report_writes_one_page_and_overwrites_none(capsys, tmp_path):
    write_pictures(tmp_path / "in", 3)
    called(capsys, "run", "in", "-o", "out", *SMALL)
    code, out, err = called(capsys, "report", "out", "-o", "page.html")
    assert (code, err) == (0, "")
    assert out.startswith("page.html: 0.")
    assert out.endswith("MB, 3 rows\n")
    code, _, err = called(capsys, "report", "out", "-o", "page.html")
    assert code == 2
    assert "--force" in err
    assert called(capsys, "report", "out", "-o", "page.html", "--force")[0] == 0
    assert called(capsys, "report", "in", "-o", "other.html")[0] == 2


def test_choices_of_the_parser_are_those_of_the_library(capsys):
    parser = importlib.import_module("dmbp_jax.cli").build_parser()
    args = parser.parse_args(["run", "a", "-o", "b"])
    assert args.shard_size == SHARD_SIZE
    assert args.dtype in DTYPES
    assert make_config(args) == DMBP()
    args = parser.parse_args(["run", "a", "b", "-o", "c", "--quick"])
    assert make_config(args).steps < DMBP().steps
    assert args.images == ["a", "b"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("kill") is None, reason="needs signals")
def test_a_scheduler_that_stops_the_run_is_answered(tmp_path):
    write_pictures(tmp_path / "in", 400, side=96)
    argv = ["run", "in", "-o", "out", "--network", "builtin", "--method", "gradient", "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-m", "dmbp_jax.cli", *argv, "--shard-size", "2", "--batch-size", "1"],
        env=os.environ | {"DMBP_HOME": str(tmp_path / "home")},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "out" / "commits").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert err.startswith("dmbp: interrupted; ")
    assert err.endswith(" of 200 shards are done; the same command goes on where it stopped\n")
    assert runs.open(tmp_path / "out").verify() == []
