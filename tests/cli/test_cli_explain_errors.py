"""`dmbp explain`: bad images beside good ones, refusals, names of results, groups of photos."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
import requests
from command_line import (  # fixtures too
    TINY,
    folder_of_pictures,  # noqa: F401
    jax_settings_as_before,  # noqa: F401 - on for every test here
    refused,
    tiny_network,  # noqa: F401
)

import dmbp_jax
from dmbp_jax.cli import main
from dmbp_jax.cli.explain import name_results
from dmbp_jax.engine.batches import collect_rows, equal_size


def test_numbers_that_overflow_are_a_bad_image(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tiny: dmbp_jax.Network,
    folder: Path,
) -> None:
    huge = dataclasses.replace(tiny, variables=jax.tree.map(lambda a: a * 1e30, tiny.variables))
    monkeypatch.setattr("dmbp_jax.networks.load.load", lambda *args: huge)
    assert main(["explain", "good0.png", "--label", "0", "--steps", "1", *TINY]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dmbp: good0.png: ")
    assert "finite" in err
    assert list(Path("dmbp-explain").iterdir()) == []


def test_explain_does_the_good_images_and_names_the_bad_ones(
    capsys: pytest.CaptureFixture[str], tiny: dmbp_jax.Network, folder: Path
) -> None:
    files = ["empty.jpg", "good0.png", "text.png", "missing.jpg", "good1.png", "folder.png"]
    assert main(["explain", *files, "--batch-size", "2", "--method", "gradient", *TINY]) == 2
    out, err = capsys.readouterr()
    assert [line.split(":")[0] for line in out.splitlines()] == ["good0.png", "good1.png"]
    assert [line.split(":")[1].strip() for line in err.splitlines()] == [
        "empty.jpg",
        "text.png",
        "missing.jpg",
        "folder.png",
    ]
    assert all(len(line) > len("dmbp: missing.jpg: ") for line in err.splitlines())
    assert len(list(Path("dmbp-explain").iterdir())) == 2


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--label", "unicorn"], "unicorn"),
        (["--label", "99"], "label < 3"),
        (["--label", "-1"], "-1"),
        (["--network", "resnet18", "--weights", "missing.pth"], "missing.pth"),
        (["--batch-size", "0"], "--batch-size: Expected at least 1"),
        (["--steps", "-1"], "steps: Expected at least 0"),
        (["--method", "gradient", "--steps", "5"], "only with --method dmbp"),
        (["--method", "rise", "--style", "authors"], "only with --method dmbp"),
        (["-o", "good1.png"], "Expected a folder"),
        (["--network", "resnet51"], "resnet50"),
        (["--network", "builtin", "--class-names", "missing.txt"], "missing.txt"),
    ],
)
def test_explain_refuses_in_one_line(
    capsys: pytest.CaptureFixture[str],
    tiny: dmbp_jax.Network,
    folder: Path,
    argv: list[str],
    words: str,
) -> None:
    assert words in refused(capsys, "explain", "good0.png", *TINY, *argv)
    assert not Path("dmbp-explain").exists()


def test_explain_overwrites_only_by_force(
    capsys: pytest.CaptureFixture[str], tiny: dmbp_jax.Network, folder: Path
) -> None:
    argv = ["explain", "good0.png", "--method", "gradient", *TINY]
    assert main(argv) == 0
    capsys.readouterr()
    assert "would be overwritten; pass --force" in refused(capsys, *argv)
    assert main([*argv, "--force"]) == 0


def test_explain_without_connection_says_what_to_fetch(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tiny: dmbp_jax.Network,
    folder: Path,
) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", offline)
    err = refused(capsys, "explain", "good0.png", "--no-compilation-cache")
    assert "https://download.pytorch.org/models/resnet50-0676ba61.pth" in err
    assert str(folder / "home") in err
    assert "dmbp demo" in err


def test_equal_names_get_results_of_their_own() -> None:
    images = [Path(name) for name in ("a/dog.jpg", "b/dog.png", "dog-2.jpg", "dog.gif", "cat.jpg")]
    names = [path.name for path in name_results(images, Path("out"), "dmbp")]
    assert names == [
        "dog.dmbp.png",
        "dog-2.dmbp.png",
        "dog-2-2.dmbp.png",
        "dog-3.dmbp.png",
        "cat.dmbp.png",
    ]
    assert name_results(images[:1], Path("out"), "rise") == [Path("out/dog.rise.png")]


@pytest.mark.parametrize(("count", "batch_size"), [(1, 8), (8, 8), (9, 8), (20, 8), (5, 1)])
def test_groups_have_one_shape_and_lose_nothing(count: int, batch_size: int) -> None:
    photos = [(i, np.full((2, 2, 3), i, np.float32)) for i in range(count)]
    groups = list(collect_rows(photos, equal_size(count, batch_size)))
    assert [photo for group in groups for photo in group.items] == list(range(count))
    assert len({group.rows.shape for group in groups}) == 1
    assert len(groups[0].rows) <= batch_size
    for group in groups:
        assert [int(image[0, 0, 0]) for image in group.rows][: group.count] == group.items


def test_a_first_group_that_is_short_is_not_filled_up() -> None:
    assert list(collect_rows([], equal_size(3, 2))) == []
