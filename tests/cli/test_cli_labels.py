"""Labels and names of files in every command: one table, one option, nothing computed is lost."""

import os
from pathlib import Path

import numpy as np
import pytest
from command_line import (  # fixtures too
    TINY,
    folder_of_pictures,  # noqa: F401
    jax_settings_as_before,  # noqa: F401 - on for every test here
    refused,
    tiny_network,  # noqa: F401
)
from PIL import Image

import dmbp_jax
from dmbp_jax import runs
from dmbp_jax.cli import build_parser, main
from dmbp_jax.cli import output as cli_output
from dmbp_jax.cli.explain import name_results
from dmbp_jax.methods import METHODS

GRADIENT = ["--method", "gradient", *TINY]


def options_of(command: str) -> set[str]:
    (commands,) = (one for one in build_parser()._actions if one.dest == "COMMAND" or one.choices)
    return set(commands.choices[command]._option_string_actions)


def test_an_option_has_one_name_and_meaning_in_every_command():
    for command in ("explain", "run", "evaluate"):
        assert {"--labels", "--class-names", "--nonaffine", "--quick"} <= options_of(command)
        assert {"--steps", "--biases", "--weights", "--network"} <= options_of(command)
    for command in ("figures", "convert"):
        assert "--labels" not in options_of(command)
        assert "--class-names" in options_of(command)
    assert "--ground-truth" not in options_of("evaluate")


def test_explain_and_run_read_the_same_table(tiny, folder, capsys):
    Path("labels.csv").write_text("File; Label\ngood1.png; honey bee;\ngood0.png; 1;\n")
    main(["explain", "good0.png", "good1.png", "--labels", "labels.csv", "--npz", *GRADIENT])
    out, err = capsys.readouterr()
    assert err == "" and "good0.png: bee (1)" in out and "good1.png: honey bee (2)" in out
    with np.load("dmbp-explain/good1.gradient.npz") as stored:
        expected = METHODS["gradient"](tiny, tiny.preprocess("good1.png"), 2)
        np.testing.assert_allclose(stored["map"], expected, rtol=1e-4, atol=1e-6)
    images = ["good0.png", "good1.png"]
    assert main(["run", *images, "-o", "out", "--labels", "labels.csv", *GRADIENT]) == 0
    assert [row["label"] for row in runs.open("out").rows] == [1, 2]


def test_explain_by_dmbp_with_a_label_for_one_image_and_top1_for_the_other(tiny, folder, capsys):
    Path("labels.tsv").write_text("file\tlabel\ngood0.png\tbee\ngood1.png\t\n")
    argv = ["explain", "good0.png", "good1.png", "--labels", "labels.tsv", "--steps", "2", *TINY]
    assert main(argv) == 0
    answer = int(np.argmax(tiny(tiny.preprocess("good1.png"))))
    out = capsys.readouterr().out
    assert "good0.png: bee (1)" in out and f"good1.png: {tiny.labels[answer]} ({answer})" in out


def test_several_labels_of_an_image_are_several_pictures(tiny, folder):
    Path("labels.csv").write_text("file,labels\ngood0.png,0;2\n")
    assert main(["explain", "good0.png", "--labels", "labels.csv", "--npz", *GRADIENT]) == 0
    for name, label in (("good0", 0), ("good0-2", 2)):
        with np.load(f"dmbp-explain/{name}.gradient.npz") as stored:
            assert stored["label"] == label


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("file\ngood0.png\n", "Expected the columns file,label, got file"),
        ("file, lable\ngood0.png, 1\n", "got file,lable"),
        ("ant\nbee\n", "Expected the columns file,label, got ant"),
        ("file,label\ngood0.png,wasp\n", "line 2: label: Expected a class name"),
        ("file,label\ngood1.png,1\n", "Expected a row for every picture, got none for good0.png"),
    ],
)
def test_a_table_that_does_not_fit_stops_every_command(tiny, folder, capsys, table, words):
    Path("t.csv").write_text(table)
    for argv in (["explain", "good0.png"], ["run", "good0.png", "-o", "out"]):
        assert words in refused(capsys, *argv, "--labels", "t.csv", *GRADIENT)
    root = ["--dataset", "csv", "--root", ".", "--network", "tiny"]
    if "every picture" not in words:
        assert words in refused(capsys, "evaluate", *root, "--labels", "t.csv", *TINY[2:])
    assert not Path("out").exists() and not Path("dmbp-explain").exists()


def test_a_table_of_images_without_labels(tiny, folder, capsys):
    Path("t.csv").write_text("file,lable\ngood0.png,1\n")
    assert "Expected the columns file,label" in refused(capsys, "run", "t.csv", "-o", "a", *TINY)
    assert main(["run", "t.csv", "-o", "a", "--label", "ant", *GRADIENT]) == 0
    Path("t.csv").write_text("file\ngood0.png\n")
    assert main(["run", "t.csv", "-o", "b", *GRADIENT]) == 0
    assert runs.open("a").rows[0]["label"] == 0 and runs.open("b").rows[0]["status"] == "ok"


def test_run_says_what_it_leaves_out(tiny, folder, capsys):
    Path("photos").mkdir()
    Path("good0.png").rename("photos/a.png")
    Path("good1.png").rename("elsewhere.png")
    Path("photos/notes.txt").touch()
    assert main(["run", "photos", "-o", "out", *GRADIENT]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "photos: 1 rows; left out 1 (no picture by its suffix .txt: 1)"


NAMES = {
    "no UTF-8": os.fsdecode(b"caf\xe9.png"),
    "224 bytes": "n" * 220 + ".png",
    "255 bytes": "n" * 251 + ".png",
    "Chinese": "猫" * 83 + ".png",
    "percent": "100%20 <b>.png",
    "line end": "a\nb.png",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_pictures_of_any_name_are_explained_run_and_reported(tiny, folder, capsys, name):
    Path("photos").mkdir()
    Path("good0.png").rename(Path("photos", name))
    Path("good1.png").rename(Path("photos", "b.png"))
    argv = ["explain", str(Path("photos", name)), "photos/b.png", "--npz", "-o", "maps"]
    assert main([*argv, *GRADIENT]) == 0
    pictures = sorted(Path("maps").glob("*.png"))
    assert len(pictures) == 2 and len(list(Path("maps").iterdir())) == 4
    assert all(path.stem.endswith(".gradient") for path in pictures)
    assert main(["run", "photos", "-o", "out", *GRADIENT]) == 0
    assert runs.open("out").rows[-1 if name > "b" else 0]["file"] == name
    assert main(["report", "out", "-o", "page.html"]) == 0
    assert Path("page.html").read_text("utf-8").count("data:image/webp") == 4
    assert "Traceback" not in capsys.readouterr().err


def test_names_that_are_cut_stay_different():
    long = ["a" * 251 + "1.png", "a" * 251 + "2.png", "猫" * 84 + ".png", "猫" * 85 + ".png"]
    names = [path.name for path in name_results([Path(one) for one in long], Path("o"), "rise")]
    assert len(set(names)) == 4
    assert all(len(name.encode()) <= 255 and name.endswith(".rise.png") for name in names)


def test_a_result_that_cannot_be_written_loses_no_other(tiny, folder, capsys, monkeypatch):
    save = Image.Image.save

    def full(picture, path, *args, **options):
        if Path("first") not in Path(".").iterdir():
            Path("first").touch()
            raise OSError(28, "No space left on device", str(path))
        save(picture, path, *args, **options)

    monkeypatch.setattr(Image.Image, "save", full)
    assert main(["explain", "good0.png", "good1.png", *GRADIENT]) == 2
    out, err = capsys.readouterr()
    assert "good1.png: " in out and "good0.png" in err and "No space left" in err
    assert [path.name for path in Path("dmbp-explain").iterdir()] == ["good1.gradient.png"]


def test_a_folder_that_cannot_be_written_to_is_refused_first(tiny, folder, capsys, monkeypatch):
    monkeypatch.setattr(cli_output.os, "access", lambda *_: False)
    assert "can be written to" in refused(capsys, "explain", "good0.png", *GRADIENT)


def test_a_home_folder_that_the_shell_has_left(tiny, folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder / "my home"))
    assert main(["explain", "good0.png", "--output=~/maps", *GRADIENT]) == 0
    assert (folder / "my home" / "maps" / "good0.gradient.png").is_file()
    (folder / "my home" / "in").mkdir()
    (folder / "good1.png").rename(folder / "my home" / "in" / "a.png")
    assert main(["run", "~/in/*", "--output=~/store", *GRADIENT]) == 0
    assert len(runs.open("~/store")) == 1
    assert not (folder / "~").exists()


def test_a_report_shows_no_other_picture_under_an_old_name(tiny, folder):
    assert main(["run", "good0.png", "good1.png", "-o", "out", *GRADIENT]) == 0
    Path("good1.png").write_bytes(Path("good0.png").read_bytes())
    runs.write_report(runs.open("out"), "page.html")
    assert Path("page.html").read_text().count("data:image/webp") == 3


def test_a_network_without_names(tiny, folder, capsys, monkeypatch):
    nameless = dmbp_jax.Network(tiny.module, tiny.variables, tiny.preprocessing)
    monkeypatch.setattr("dmbp_jax.networks.load.load", lambda *_: nameless)
    assert main(["explain", "good0.png", "--label", "2", *GRADIENT]) == 0
    assert "good0.png: class (2)" in capsys.readouterr().out
    assert "Expected 0 <= label < 3, got 3" in refused(
        capsys, "run", "good0.png", "-o", "out", "--label", "3", *GRADIENT
    )
