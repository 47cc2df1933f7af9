"""The hosted workflow runs `.ci/run` on the oldest and the newest Python of the metadata."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
SCRIPT = ROOT / ".ci" / "run"


def test_the_workflow_runs_the_script_on_both_corners() -> None:
    assert os.access(SCRIPT, os.X_OK)
    assert re.findall(r"^ +- run: (.*)$", WORKFLOW, flags=re.M) == [".ci/run"]
    (matrix,) = re.findall(r"^ +python: \[(.*)\]$", WORKFLOW, flags=re.M)
    corners = re.findall(r'"(3\.\d+)"', matrix)
    listed = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if ":: 3." in line]
    assert corners == [listed[0], listed[-1]]
    assert PROJECT["requires-python"] == f">={corners[0]}"


def test_coverage_comes_from_the_environment_not_from_the_default_options() -> None:
    script = SCRIPT.read_text("utf-8")
    assert "PYTEST_ADDOPTS=$coverage" in script
    assert 'coverage="--cov=dmbp_jax' in script
    assert "--cov" not in (ROOT / "README.md").read_text("utf-8")
    assert "--cov" not in (ROOT / "pyproject.toml").read_text("utf-8").split("[tool.pytest")[1]


def test_the_script_is_shell() -> None:
    done = subprocess.run(["bash", "-n", str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_urls_are_of_one_repository() -> None:
    assert {"Homepage", "Source", "Documentation", "Changelog"} <= set(PROJECT["urls"])
    assert all(url.startswith(PROJECT["urls"]["Source"]) for url in PROJECT["urls"].values())
    for name in ("Documentation", "Changelog"):
        path = PROJECT["urls"][name].split("/main/")[1]
        assert (ROOT / path).exists(), path
