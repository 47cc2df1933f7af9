"""The command line: what it parses, writes, refuses, and says in one line."""

import argparse
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
import requests
from PIL import Image

import dmbp_jax
from dmbp_jax.cli import COMMANDS, build_parser, compilation, demo, main
from dmbp_jax.cli.explain import LOSSES, METHODS, batches, name_results
from dmbp_jax.cli.output import keep, make_folder, replacing
from dmbp_jax.cli.reporting import one_line
from dmbp_jax.data.generated import CLASSES, generate
from dmbp_jax.dmbp.config import Loss
from dmbp_jax.errors import DmbpError, InputError
from dmbp_jax.networks.preprocessing import Preprocessing
from dmbp_jax.pictures import diverging, overlay

NAMES = [command.__name__.rpartition(".")[2] for command in COMMANDS]


@pytest.fixture(autouse=True)
def jax_settings_as_before():
    """Commands switch the compilation cache of the process; other tests must not notice."""
    names = ("jax_compilation_cache_dir", "jax_enable_compilation_cache")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must fail; its one line on stderr."""
    try:
        code = main(argv)
    except SystemExit as stop:  # argparse
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


# parsing


@pytest.mark.parametrize("argv", [["--help"], *([name, "--help"] for name in NAMES)])
def test_help_imports_no_jax_and_shows_an_example(argv: list[str], tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from dmbp_jax.cli import main\n"
        "try:\n"
        f"    main({argv!r})\n"
        "except SystemExit as stop:\n"
        "    heavy = {'jax', 'flax', 'numpy', 'PIL', 'optax'} & set(sys.modules)\n"
        "    sys.exit(f'imported {heavy}' if heavy else stop.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert ("dmbp " + " ".join(argv[:-1])).strip() in done.stdout
    assert "example" in done.stdout or argv == ["--help"]
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.parametrize("name", NAMES)
def test_the_example_in_the_help_can_be_parsed(name: str) -> None:
    subparsers = build_parser()._subparsers
    assert subparsers is not None
    (choices,) = [
        action.choices
        for action in subparsers._group_actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    epilog = choices[name].epilog
    commands = [
        command.split()
        for line in epilog.splitlines()
        if line.startswith("  dmbp ")
        for command in line.replace('"golden retriever"', "golden_retriever").split("&&")
    ]
    assert any(command[1] == name for command in commands)
    for command in commands:
        build_parser().parse_args(command[1:])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "COMMAND"),
        (["paint"], "paint"),
        (["explain"], "IMAGE"),
        (["explain", "dog.jpg", "--method", "magic"], "magic"),
        (["explain", "dog.jpg", "--steps", "many"], "many"),
        (["explain", "dog.jpg", "--colour"], "--colour"),
        (["convert", "a.pth", "b.safetensors"], "--network"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    capsys: pytest.CaptureFixture[str], argv: list[str], words: str
) -> None:
    err = refused(capsys, *argv)
    assert words in err
    assert "--help" in err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"dmbp-jax {dmbp_jax.__version__}\n"


def test_choices_are_those_of_the_library() -> None:
    from typing import get_args

    from dmbp_jax.methods import METHODS as registry

    assert set(METHODS) == set(registry)
    assert get_args(Loss) == LOSSES


# errors


def stub(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(args: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr("dmbp_jax.cli.networks.run", fail)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("label: Expected\n  a class"), "dmbp: label: Expected a class"),
        (FileNotFoundError(2, "No such file", "dog.jpg"), "dmbp: dog.jpg: No such file"),
        (PermissionError(13, "Permission denied"), "dmbp: [Errno 13] Permission denied"),
        (DmbpError(), "dmbp: DmbpError"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    line: str,
) -> None:
    stub(monkeypatch, error)
    assert refused(capsys, "networks") == line + "\n"


def test_an_interrupt_is_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(monkeypatch, KeyboardInterrupt())
    assert main(["networks"]) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    stub(monkeypatch, ZeroDivisionError("ours"))
    with pytest.raises(ZeroDivisionError, match="ours"):
        main(["networks"])


def test_one_line_of_an_operating_system_error() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Path("no/such/file").read_text()
    assert one_line(caught.value) == "no/such/file: No such file or directory"


# output


def test_results_are_not_overwritten_by_accident(tmp_path: Path) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    keep(files, force=False)
    for file in files:
        file.write_text("mine")
    with pytest.raises(InputError, match=r"a\.png and 1 more would be overwritten; pass --force"):
        keep(files, force=False)
    keep(files, force=True)


def test_the_folder_of_the_results_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    make_folder(folder)
    make_folder(folder)
    assert folder.is_dir()
    file = tmp_path / "file"
    file.write_text("mine")
    for taken in (file, file / "folder"):
        with pytest.raises(InputError, match="-o: Expected a folder"):
            make_folder(taken)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "map.png"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(target) as part:
        part.write_text("half")
        raise ZeroDivisionError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    with replacing(target) as part:
        assert part.suffix == ".png"
        part.write_text("new")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


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
    from dmbp_jax.cli.explain import Photo

    blank = Image.new("RGB", (2, 2))
    photos = [
        Photo(Path(str(i)), Path(str(i)), blank, np.full((2, 2, 3), i, np.float32))
        for i in range(count)
    ]
    groups = list(batches(iter(photos), count, batch_size))
    assert [photo for group, _ in groups for photo in group] == photos
    assert len({x.shape for _, x in groups}) == 1
    assert groups[0][1].shape[0] <= batch_size
    for group, x in groups:
        assert [int(image[0, 0, 0]) for image in x][: len(group)] == [
            int(p.path.name) for p in group
        ]


def test_a_first_group_that_is_short_is_not_filled_up() -> None:
    assert list(batches(iter([]), 3, 2)) == []


# compilation cache


def test_the_compilation_cache_can_be_refused_and_a_users_own_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DMBP_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", "/users/own")
    compilation.use_cache(argparse.Namespace(no_compilation_cache=False))
    assert jax.config.jax_compilation_cache_dir == "/users/own"
    jax.config.update("jax_compilation_cache_dir", None)
    compilation.use_cache(argparse.Namespace(no_compilation_cache=True))
    assert jax.config.jax_compilation_cache_dir is None
    assert not jax.config.jax_enable_compilation_cache
    compilation.use_cache(argparse.Namespace(no_compilation_cache=False))
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "compiled")


def test_the_library_leaves_the_compilation_cache_alone(tmp_path: Path) -> None:
    script = (
        "import dmbp_jax, jax\n"
        "dmbp_jax.load('builtin')\n"
        "assert jax.config.jax_compilation_cache_dir is None\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


# networks


def test_networks_lists_every_network_and_what_is_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DMBP_HOME", str(tmp_path))
    (tmp_path / "resnet50-0676ba61.pth").touch()
    assert main(["networks"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:])
    assert tuple(lines) == dmbp_jax.list_networks()
    assert lines["builtin"].split(maxsplit=2) == ["10", "96x96", "inside the package"]
    assert lines["resnet50"].split(maxsplit=2) == [
        "1000",
        "224x224",
        f"here: {tmp_path / 'resnet50-0676ba61.pth'} (checked by SHA-256)",
    ]
    assert "to download: https://" in lines["vgg16"]
    assert lines["vgg16"].endswith(".pth (checked by SHA-256)")
    assert lines["vgg11"].endswith(".pth (checked by the 8 hex digits of its name)")


# convert


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-18 with random weights and three classes, in torchvision's names."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}

    def convolution(name: str, norm: str, inputs: int, outputs: int, side: int) -> None:
        weight = rng.normal(0, (2 / (inputs * side**2)) ** 0.5, (outputs, inputs, side, side))
        arrays[f"{name}.weight"] = weight.astype(np.float32)
        for part, value in {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}.items():
            arrays[f"{norm}.{part}"] = np.full(outputs, value, np.float32)

    convolution("conv1", "bn1", 3, 64, 7)
    inputs = 64
    for stage, outputs in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name = f"layer{stage}.{block}"
            convolution(f"{name}.conv1", f"{name}.bn1", inputs, outputs, 3)
            convolution(f"{name}.conv2", f"{name}.bn2", outputs, outputs, 3)
            if inputs != outputs:
                convolution(f"{name}.downsample.0", f"{name}.downsample.1", inputs, outputs, 1)
            inputs = outputs
    arrays["fc.weight"] = rng.normal(0, 0.04, (3, 512)).astype(np.float32)
    arrays["fc.bias"] = np.zeros(3, np.float32)
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    save_file(arrays, path)
    return path


def test_convert_writes_a_file_that_loads(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, tmp_path: Path
) -> None:
    names, target = tmp_path / "names.txt", tmp_path / "folded.safetensors"
    names.write_text("ant\nbee\ncat\n")
    argv = [
        "convert",
        str(checkpoint),
        str(target),
        "--network",
        "resnet18",
        "--labels",
        str(names),
    ]
    assert main(argv) == 0
    assert capsys.readouterr().out.startswith(f"{checkpoint} -> {target} (")
    net = dmbp_jax.load("resnet18", target)
    assert net.labels == ("ant", "bee", "cat")
    assert "would be overwritten" in refused(capsys, *argv)
    assert main([*argv, "--force"]) == 0


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["missing.pth", "new.safetensors", "--network", "resnet50"], "missing.pth"),
        (["{mine}", "new.safetensors", "--network", "resnet51"], "resnet50"),
        (["{mine}", "new.safetensors", "--network", "resnet18"], "Expected (1000, 512)"),
        (["{mine}", "new.safetensors", "--network", "vgg16"], "missing"),
        (["{mine}", "{mine}", "--network", "resnet18"], "would be overwritten"),
        (["{mine}", "no/folder/new.safetensors", "--network", "builtin"], "builtin"),
    ],
)
def test_convert_refuses_in_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    checkpoint: Path,
    tmp_path: Path,
    argv: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = checkpoint.read_bytes()
    assert words in refused(capsys, "convert", *(a.format(mine=checkpoint) for a in argv))
    assert list(tmp_path.iterdir()) == []
    assert checkpoint.read_bytes() == before


# explain


class Tiny(nn.Module):
    """A network that compiles in a second."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        return nn.Dense(3)(nn.relu(nn.Conv(4, (3, 3), 2)(x)).mean((1, 2)))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> dmbp_jax.Network:
    """`--network tiny`, 16x16 pixels."""
    variables = Tiny().init(jax.random.key(0), np.zeros((1, 16, 16, 3)))
    small = Preprocessing(resize=16, size=16)
    net = dmbp_jax.Network(Tiny(), variables, small, ("ant", "bee", "honey bee"), "tiny")
    load = dmbp_jax.load

    def load_tiny(name: str, *args: object) -> dmbp_jax.Network:
        return net if name == "tiny" else load(name, *args)

    monkeypatch.setattr("dmbp_jax.networks.load.load", load_tiny)
    return net


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two good pictures and three files that are none; commands run beside them."""
    for index in range(2):
        Image.fromarray(generate(3, index).image).save(tmp_path / f"good{index}.png")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMBP_HOME", str(tmp_path / "home"))
    return tmp_path


TINY = ["--network", "tiny", "--no-compilation-cache", "--quiet"]


def test_explain_writes_pictures_arrays_and_numbers(
    capsys: pytest.CaptureFixture[str], tiny: dmbp_jax.Network, folder: Path
) -> None:
    argv = ["explain", "good0.png", "good1.png", "--label", "bee", "--steps", "30", "--npz"]
    assert main([*argv, "-o", "maps", *TINY]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for index, line in enumerate(out.splitlines()):
        target = Path("maps") / f"good{index}.dmbp.png"
        assert line.startswith(f"good{index}.png: bee (1)  y ")
        assert line.endswith(f"  -> {target}")
        with Image.open(target) as picture:
            assert picture.size == (4 * 192 + 40, 192 + 38 + 30)
        stored = dmbp_jax.Attribution.load(target.with_suffix(".npz"))
        x = tiny.preprocess(f"good{index}.png")
        alone = dmbp_jax.attribute(tiny, x, 1, config=dmbp_jax.DMBP(steps=30))
        np.testing.assert_allclose(stored.map, alone.map, rtol=1e-4, atol=1e-6)
        assert stored.history.shape == (30, 3)
        told = dict(re.findall(r"(y[+~-]?) (-?[\d.]+)", line))
        for name, value in {
            "y": alone.y,
            "y+": alone.y_positive,
            "y-": alone.y_negative,
            "y~": alone.y_nuisance,
        }.items():
            assert float(told[name]) == pytest.approx(float(value), abs=2e-3)
    assert sorted(path.name for path in Path("maps").iterdir()) == [
        "good0.dmbp.npz",
        "good0.dmbp.png",
        "good1.dmbp.npz",
        "good1.dmbp.png",
    ]


def test_explain_takes_the_networks_own_answer_and_shows_its_progress(
    capsys: pytest.CaptureFixture[str], tiny: dmbp_jax.Network, folder: Path
) -> None:
    answer = int(np.argmax(tiny(tiny.preprocess("good0.png"))))
    assert main(["explain", "good0.png", "--steps", "25", *TINY[:-1]]) == 0
    out, err = capsys.readouterr()
    assert f": {tiny.labels[answer]} ({answer})  y " in out
    assert "25/25" in err
    assert Path("dmbp-explain/good0.dmbp.png").is_file()


@pytest.mark.parametrize("loss", LOSSES)
def test_explain_draws_the_authors_overlay_of_every_loss(
    tiny: dmbp_jax.Network, folder: Path, loss: str
) -> None:
    argv = ["explain", "good0.png", "--loss", loss, "--format", "overlay", "--label", "0"]
    assert main([*argv, "--steps", "20", *TINY]) == 0
    config = dmbp_jax.DMBP(steps=20, loss=loss)
    att = dmbp_jax.attribute(tiny, tiny.preprocess("good0.png"), 0, config=config)
    expected = overlay(tiny.crop("good0.png"), att.positive, att.negative)
    with Image.open("dmbp-explain/good0.dmbp.png") as picture:
        difference = np.asarray(picture).astype(int) - np.asarray(expected)
    assert np.abs(difference).max() <= 2


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


@pytest.mark.parametrize("method", ["gradient", "gradcam"])
@pytest.mark.parametrize("format", ["panel", "overlay", "map"])
def test_explain_by_another_method(
    capsys: pytest.CaptureFixture[str],
    tiny: dmbp_jax.Network,
    folder: Path,
    method: str,
    format: str,
) -> None:
    argv = ["explain", "good0.png", "--method", method, "--label", "1", "--format", format]
    assert main([*argv, "--npz", *TINY]) == 0
    out, _ = capsys.readouterr()
    x = tiny.preprocess("good0.png")
    logit = float(tiny(x)[1])
    assert f"bee (1)  logit {logit:.3f}" in out
    target = Path("dmbp-explain") / f"good0.{method}.png"
    size = {"panel": (2 * 192 + 24, 192 + 38 + 30)}.get(format, (16, 16))
    with Image.open(target) as picture:
        assert picture.size == size
    with np.load(target.with_suffix(".npz")) as stored:
        expected = dmbp_jax.methods.METHODS[method](tiny, x, 1)
        np.testing.assert_allclose(stored["map"], expected, rtol=1e-3, atol=1e-5)
        assert int(stored["label"]) == 1
        assert float(stored["logit"]) == pytest.approx(logit, abs=1e-4)


def test_a_map_without_a_zero_is_drawn_around_its_mean(
    monkeypatch: pytest.MonkeyPatch, tiny: dmbp_jax.Network, folder: Path
) -> None:
    scores = 100 + np.random.default_rng(0).normal(size=(1, 16, 16))
    monkeypatch.setitem(dmbp_jax.methods.METHODS, "rise", lambda *args: scores)
    argv = ["explain", "good0.png", "--method", "rise", "--format", "map", "--npz", *TINY]
    assert main(argv) == 0
    with Image.open("dmbp-explain/good0.rise.png") as picture:
        np.testing.assert_array_equal(
            np.asarray(picture), np.asarray(diverging(scores[0] - scores[0].mean()))
        )
    with np.load("dmbp-explain/good0.rise.npz") as stored:
        np.testing.assert_array_equal(stored["map"], scores[0])


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
        (["-o", "good1.png"], "Expected a folder"),
        (["--network", "resnet51"], "resnet50"),
        (["--network", "builtin", "--labels", "missing.txt"], "missing.txt"),
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


# demo


def test_demo_draws_and_measures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    argv = ["demo", "-o", str(folder), "--steps", "2", "--no-compilation-cache", "--quiet"]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert err == ""
    names = {path.name for path in folder.iterdir()}
    assert len(names) == 5 + 10 + 1
    assert {"scene-1.png", "scene-4.star.png", "scene-4.cross.png", "comparison.png"} <= names
    shares = [[int(n) for n in re.findall(r"(\d+)%", line)] for line in out.splitlines()[:2]]
    assert [len(numbers) for numbers in shares] == [3, 3]
    with Image.open(folder / "scene-4.png") as picture:
        expected = generate(demo.SEED, 3, ("star", "cross")).image
        np.testing.assert_array_equal(np.asarray(picture), expected)


def test_shares_of_hand_made_maps() -> None:
    star, cross = CLASSES.index("star"), CLASSES.index("cross")
    sample = generate(demo.SEED, 0, ("star", "cross"))
    question = demo.Question(sample, star, cross)
    target, rival = sample.masks[star], sample.masks[cross]
    right = target.astype(float) - rival
    area = demo.areas([question])
    flat = demo.measure([question], np.ones((1, 96, 96)))
    assert demo.measure([question], right[None]) == (1.0, 1.0)
    assert demo.measure([question], -right[None]) == (0.0, 0.0)
    assert demo.measure([question], np.zeros((1, 96, 96))) == (0.0, 0.0)
    assert flat == (pytest.approx(area.positive_on_target), 0.0)
    both = demo.measure([question] * 2, np.stack([right, -right]))
    assert both == (0.5, 0.5)
    assert pixels(demo.truth(question))[target].tolist()[0] == [255, 0, 0]
    assert pixels(demo.truth(question))[rival].tolist()[0] == [0, 0, 255]


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture)
