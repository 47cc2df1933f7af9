"""What the commands write: nothing over a file by accident, nothing half; the compilation cache."""

import argparse
import errno
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from command_line import jax_settings_as_before  # noqa: F401 - on for every test here

from dmbp_jax.cli.output import make_folder, one_line, refuse_overwrite
from dmbp_jax.cli.settings import use_compilation_cache
from dmbp_jax.errors import InputError
from dmbp_jax.files import replacing


def test_results_are_not_overwritten_by_accident(tmp_path: Path) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    refuse_overwrite(files, force=False)
    for file in files:
        file.write_text("mine")
    with pytest.raises(InputError, match=r"a\.png and 1 more would be overwritten; pass --force"):
        refuse_overwrite(files, force=False)
    refuse_overwrite(files, force=True)


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
    with pytest.raises(OSError) as caught, replacing(target):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert one_line(caught.value) == f"{target}: No space left on device"
    os.mkfifo(tmp_path / "pipe.png")
    for other in (tmp_path, tmp_path / "pipe.png"):
        with pytest.raises(InputError, match="Expected the name of a file"), replacing(other):
            pass


def test_a_reader_that_has_closed_the_output_is_no_success() -> None:
    command = [sys.executable, "-m", "dmbp_jax.cli", "networks"]
    read, write = os.pipe()
    os.close(read)
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=buffered)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_compilation_cache_can_be_refused_and_a_users_own_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DMBP_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", "/users/own")
    use_compilation_cache(argparse.Namespace(no_compilation_cache=False))
    assert jax.config.jax_compilation_cache_dir == "/users/own"
    jax.config.update("jax_compilation_cache_dir", None)
    use_compilation_cache(argparse.Namespace(no_compilation_cache=True))
    assert jax.config.jax_compilation_cache_dir is None
    assert not jax.config.jax_enable_compilation_cache
    use_compilation_cache(argparse.Namespace(no_compilation_cache=False))
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "compiled")


def test_the_library_leaves_the_compilation_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    script = (
        "import dmbp_jax, jax\n"
        "dmbp_jax.load('builtin')\n"
        "assert jax.config.jax_compilation_cache_dir is None\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
