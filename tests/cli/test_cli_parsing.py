"""The command line: help, examples, choices, and every mistake in one line."""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import refused

import dmbp_jax
from dmbp_jax.cli import COMMANDS, build_parser, main
from dmbp_jax.cli.output import one_line
from dmbp_jax.cli.parser import LOSSES, METHODS
from dmbp_jax.cli.settings import make_biases
from dmbp_jax.dmbp.objective import OBJECTIVES
from dmbp_jax.errors import DmbpError, InputError

NAMES = list(COMMANDS)


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
        shlex.split(command)
        for line in epilog.splitlines()
        if line.startswith("  dmbp ")
        for command in line.split("&&")
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
    from dmbp_jax.methods import METHODS as registry

    assert set(METHODS) == set(registry)
    assert set(OBJECTIVES) == set(LOSSES)


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


@pytest.mark.parametrize(
    ("given", "biases"),
    [
        ("", "drop"),
        ("--quick", "refine"),
        ("--quick --biases drop", "drop"),
        ("--biases spread", "spread"),
    ],
)
def test_quick_refines_the_map_and_the_papers_map_leaves_them_out(given: str, biases: str) -> None:
    args = build_parser().parse_args(["explain", "dog.jpg", *given.split()])
    assert make_biases(args) == biases
