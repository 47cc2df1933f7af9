"""What `evaluate` keeps, continues and refuses; the kill test stops a real process with SIGKILL."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from PIL import Image
from tiny_evaluation import (
    LONG,
    SETTINGS,
    SHORT,
    crop,
    log_of,
    make_params,
    network,
    preprocess,
    run,
    watched,
)

from dmbp_jax.data import Dataset, FilePicture, list_generated
from dmbp_jax.errors import InputError, ResumeError
from dmbp_jax.experiments import Evaluation, MethodRow, Settings
from dmbp_jax.experiments import plan as configuration
from dmbp_jax.experiments.results import MANIFEST, OWN, RECORDS

KILLS = int(os.environ.get("DMBP_KILLS", "3"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """An uninterrupted evaluation."""
    return run(tmp_path_factory.mktemp("whole"))


def test_a_finished_evaluation_is_only_read(whole: Evaluation, tmp_path: Path) -> None:
    shutil.copytree(whole.folder, tmp_path / "copy")
    unread = watched(lambda name: pytest.fail(f"{name} was opened"))
    again = run(tmp_path / "copy", dataset=unread)
    assert repr(again.tables) == repr(whole.tables)  # which hold NaN
    assert str(again) == str(whole)


def test_other_pictures_of_the_same_names_are_another_evaluation(tmp_path: Path) -> None:
    """As ImageNet-C has; where the same pictures have moved, or are gone, it goes on."""

    def pictures(name: str) -> Dataset:
        files = sorted((tmp_path / name).iterdir())
        return Dataset("csv", tuple(FilePicture(one.name, one, (0,)) for one in files))

    settings = dataclasses.replace(SHORT, tables=(1,), methods=("gradient",))
    (tmp_path / "clean").mkdir()
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "clean" / f"{i}.png")
    first = run(tmp_path / "out", settings, dataset=pictures("clean"))
    shutil.copytree(tmp_path / "clean", tmp_path / "moved")
    again = run(tmp_path / "out", settings, dataset=pictures("moved"))
    assert str(again) == str(first)
    Image.new("RGB", (24, 24)).save(tmp_path / "moved" / "1.png")
    moved = pictures("moved")
    with pytest.raises(ResumeError, match=r"got another 1\.png: measured \d+ bytes, now \d+"):
        run(tmp_path / "out", settings, dataset=moved)
    shutil.rmtree(tmp_path / "moved")
    assert str(run(tmp_path / "out", settings, dataset=moved)) == str(first)


def test_stopped_between_batches_it_continues(whole: Evaluation, tmp_path: Path) -> None:
    pictures: list[str] = []

    def stop(name: str) -> None:
        pictures.append(name)
        if len(pictures) > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, dataset=watched(stop))
    assert log_of(tmp_path)
    result = run(tmp_path)
    assert repr(result.tables) == repr(whole.tables)  # which hold NaN
    assert log_of(tmp_path) == log_of(whole.folder)


def test_parts_that_are_not_there_are_made_again(whole: Evaluation, tmp_path: Path) -> None:
    own, before = tmp_path / OWN, whole.folder / OWN
    (own / RECORDS).mkdir(parents=True)
    (own / MANIFEST).write_bytes((before / MANIFEST).read_bytes())
    parts = sorted((before / RECORDS).iterdir())
    for kept in (parts[:0], parts[:1], parts[:-1], parts[1:], parts[2:5]):
        for part in (own / RECORDS).iterdir():
            part.unlink()
        for part in kept:
            (own / RECORDS / part.name).write_bytes(part.read_bytes())
        result = run(tmp_path)
        assert repr(result.tables) == repr(whole.tables)  # which hold NaN
        stored = [json.loads(line) for line in log_of(tmp_path).splitlines()]
        keys = [(line["picture"], line["label"], line["method"]) for line in stored]
        assert len(set(keys)) == len(keys) == 21


def test_damage_is_refused(whole: Evaluation, tmp_path: Path) -> None:
    own = tmp_path / OWN
    shutil.copytree(whole.folder / OWN, own)
    part = own / RECORDS / "00000001.jsonl"
    whole_part = part.read_bytes()
    part.write_bytes(whole_part[:-9])  # no kill does this: a part is written whole
    with pytest.raises(ResumeError, match=r"00000001\.jsonl, line 3: not a record"):
        run(tmp_path)
    first, rest = whole_part.split(b"\n", 1)
    part.write_bytes(json.dumps(json.loads(first) | {"label": "cat"}).encode() + b"\n" + rest)
    with pytest.raises(ResumeError, match="line 1: not a record"):
        run(tmp_path)
    with part.open("r+b") as stream:
        stream.write(b"x")
    with pytest.raises(ResumeError, match="line 1: not a record"):
        run(tmp_path)
    stored = json.loads((own / MANIFEST).read_text())
    part.write_bytes(whole_part)
    (own / MANIFEST).write_text(json.dumps(stored | {"configuration": 3}))
    with pytest.raises(ResumeError, match="Expected the settings"):
        run(tmp_path)
    for damage in ("write", "unlink"):
        if damage == "write":
            (own / MANIFEST).write_text("{")
        else:
            (own / MANIFEST).unlink()
        with pytest.raises(InputError, match=r"one with the manifest\.json of an evaluation, got"):
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
            {"options": {"smoothgrad": {"n_samples": 3}, "dmbp": {"steps": 2}}},
        ),
        ("methods", {"methods": ("gradient",)}),
        ("points", {"points": 4}),
        ("activation", {"activation": "sigmoid"}),
        ("batch size", {"batch_size": 2}),
        ("redraws", {"redraws": 3}),
        ("last layer", {"last_layer": "last"}),
    ],
)
def test_other_settings_are_refused_by_name(
    whole: Evaluation, field: str, changes: dict[str, Any]
) -> None:
    before = log_of(whole.folder)
    with pytest.raises(ResumeError, match=f"another {field}\\b.*: stored ") as refusal:
        run(whole.folder, dataclasses.replace(SETTINGS, **changes))
    assert "--force" in str(refusal.value)
    assert log_of(whole.folder) == before


def test_other_weights_and_pictures_are_refused(whole: Evaluation) -> None:
    with pytest.raises(ResumeError, match=r"another weights\b.*: stored "):
        run(whole.folder, params=make_params(1))
    with pytest.raises(ResumeError, match=r"another network without weights\b.*: stored "):
        run(whole.folder, params=make_params() | {"scale": 2})
    with pytest.raises(ResumeError, match=r"another chosen targets\b.*: stored "):
        run(whole.folder, dataset=list_generated(seed=3, size=8))


def lighter(picture: Image.Image) -> np.ndarray:
    return preprocess(picture) + 0.1


def mirrored(picture: Image.Image) -> Image.Image:
    return crop(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))


def doubled(params: Any, x: jax.Array) -> jax.Array:
    return 2 * network(params, x)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("preprocess", {"preprocess": lighter}),
        ("preprocess", {"preprocess": partial(preprocess)}),
        ("crop", {"crop": mirrored}),
        ("network", {"apply_fn": doubled}),
    ],
)
def test_other_pictures_and_networks_are_refused(
    whole: Evaluation, field: str, changes: dict[str, Any]
) -> None:
    before = log_of(whole.folder)
    with pytest.raises(ResumeError, match=f"another {field}\\b.*: stored "):
        run(whole.folder, **changes)
    assert log_of(whole.folder) == before


def test_other_versions_and_devices_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, SHORT)
    with monkeypatch.context() as patch:
        patch.setattr(jax, "__version__", "0.0.1")
        with pytest.raises(ResumeError, match=r"another jax\b.*: stored "):
            run(tmp_path, SHORT)
    with monkeypatch.context() as patch:
        patch.setattr(configuration, "__version__", "0.0.1")
        with pytest.raises(ResumeError, match=r"another version\b.*: stored "):
            run(tmp_path, SHORT)
    manifest = json.loads((tmp_path / OWN / MANIFEST).read_text())
    manifest["configuration"]["device"] = "abacus"
    (tmp_path / OWN / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ResumeError, match=r"another device\b.*: stored "):
        run(tmp_path, SHORT)


def with_optimizer(rate: float) -> Settings:
    options = {"dmbp": {"steps": 1, "optimizer": optax.adam(rate)}}
    return dataclasses.replace(SHORT, methods=["dmbp"], options=options)


def test_an_optax_optimiser_is_continued_and_another_one_refused(tmp_path: Path) -> None:
    first = run(tmp_path, with_optimizer(0.1))
    assert repr(run(tmp_path, with_optimizer(0.1)).tables) == repr(first.tables)  # which hold NaN
    with pytest.raises(ResumeError, match=r"another options of dmbp\b.*: stored "):
        run(tmp_path, with_optimizer(0.2))


def test_options_that_print_alike_are_told_apart(tmp_path: Path) -> None:
    def weighted(params: Any, x: Any, label: Any, *, apply_fn: Any, weights: Any) -> Any:
        return x.sum(-1) * weights[: 24 * 24].reshape(24, 24)

    def settings(weights: np.ndarray) -> Settings:
        row = MethodRow("weighted", weighted, options=(("weights", weights),))
        return dataclasses.replace(SHORT, methods=[row])

    long, other = np.ones(2000), np.ones(2000)
    other[300] = -1
    assert repr(long) == repr(other)
    run(tmp_path, settings(long))
    run(tmp_path, settings(long.copy()))
    with pytest.raises(ResumeError, match=r"another options of weighted\b.*: stored "):
        run(tmp_path, settings(other))


def test_other_code_of_a_method_is_refused(tmp_path: Path) -> None:
    def settings(sign: int) -> Settings:
        def own(params: Any, x: Any, label: Any, *, apply_fn: Any) -> Any:
            return sign * x.sum(-1)

        return dataclasses.replace(SHORT, methods=[MethodRow("own", own)])

    run(tmp_path, settings(1))
    run(tmp_path, settings(1))
    with pytest.raises(ResumeError, match=r"another code of methods\b.*: stored "):
        run(tmp_path, settings(-1))


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_table(tmp_path: Path) -> None:
    """`DMBP_KILLS=10` for ten kills; at least one of them hits a half-done evaluation."""
    rng = random.Random(os.environ.get("DMBP_KILLS_SEED", "0"))
    code = "import sys, pathlib, tiny_evaluation as t; t.run(pathlib.Path(sys.argv[1]), t.LONG)"
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # as here: other code rounds otherwise
    }
    start = partial(
        subprocess.Popen,
        [sys.executable, "-c", code, str(tmp_path / "killed")],
        cwd=Path(__file__).parents[1] / "support",
        env=environment,
    )
    out = tmp_path / "killed"
    expected = run(tmp_path / "whole", LONG)
    size = len(log_of(tmp_path / "whole"))
    cuts = sorted(rng.randrange(size) for _ in range(KILLS))
    stops = []
    for cut in cuts:
        child = start()
        while child.poll() is None and len(log_of(out)) <= cut:
            time.sleep(0.0005)
        time.sleep(rng.random() * 0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()
        stops.append(len(log_of(out)))
    assert min(stops) < size, "no kill came before the end"
    half = out / OWN / RECORDS / "00000099.jsonl.__lock"  # and a part that a kill cut short
    half.write_bytes(b'{"picture": "1/')
    assert start().wait() == 0
    result = run(out, LONG)
    assert repr(result.tables) == repr(expected.tables)  # which hold NaN
    for name in ("tables.md", "tables.csv", "evaluation.html"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    keys = [record.key for record in result.records]
    assert len(set(keys)) == len(keys) == len(expected.records)
    assert len(log_of(out).splitlines()) == len(keys)
