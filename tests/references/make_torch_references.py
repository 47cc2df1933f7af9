"""Write the stored references of tests/zoo/test_convert_logits.py; needs PyTorch.

    python tests/references/make_torch_references.py

Small networks: checkpoint in both PyTorch containers (and as timm and TorchRay name things),
written by PyTorch, and float64 logits. Full size: names, shapes and float64 logits.
"""

import json
from pathlib import Path

import numpy as np
import torch
from cases import FULL, SMALL, Case, picture, random_state
from safetensors.torch import save_file
from torch_twins import VGG, ResNet

HERE = Path(__file__).parent
STAGES = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3), "vgg16": (2, 2, 3, 3, 3)}


def twin(case: Case) -> torch.nn.Module:
    """The PyTorch network of a case, with its random weights, in float64."""
    architecture, _, variant = case.network.partition("_")
    sizes = {"stage_sizes": STAGES[architecture]} | case.sizes
    caffe = variant in ("voc", "coco")
    if architecture.startswith("resnet"):
        expansion = 1 if architecture in ("resnet18", "resnet34") else 4
        network = ResNet(expansion=expansion, caffe=caffe, **sizes)
    else:
        network = VGG(batch_norm=variant == "bn", caffe=caffe, **sizes)
    shapes = [(name, tensor.shape) for name, tensor in network.state_dict().items()]
    state = {name: torch.from_numpy(array) for name, array in random_state(shapes).items()}
    network.load_state_dict(state)
    return network.double().eval()


def logits(case: Case, network: torch.nn.Module) -> np.ndarray:
    """What PyTorch answers to the case's pictures."""
    x = torch.from_numpy(picture(case.side)).double().permute(0, 3, 1, 2)
    with torch.no_grad():
        return network(x).numpy()


def published(case: Case, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict as it is published: TorchRay's Caffe networks have other names and BGR."""
    if case.network == "resnet50_voc":
        state["conv1.weight"] = state["conv1.weight"].flip(1)
        renamed = {}
        for name, tensor in state.items():
            parts = name.split(".")
            for i, part in enumerate(parts[:-1]):
                if part.startswith("bn") or parts[i - 1] == "downsample":
                    parts[i] = f"{part}.0"
            renamed[".".join(parts)] = tensor
        return renamed
    if case.network == "vgg16_voc":
        state["features.0.weight"] = state["features.0.weight"].flip(1)
        for kept, number, size in (("0", "0", 7), ("3", "2", 1), ("6", "4", 1)):
            weight = state.pop(f"classifier.{kept}.weight")
            state[f"classifier.{number}.weight"] = weight.reshape(len(weight), -1, size, size)
            state[f"classifier.{number}.bias"] = state.pop(f"classifier.{kept}.bias")
    return state


def as_timm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Timm's names: a VGG's dense layers are convolutions."""
    names = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2"}
    renamed = {}
    for name, tensor in state.items():
        layer, part = name.rsplit(".", 1)
        if layer in names and part == "weight":
            size = 7 if layer == "classifier.0" else 1
            tensor = tensor.reshape(len(tensor), -1, size, size)
        layer = names.get(layer, layer.replace("classifier.6", "head.fc"))
        renamed[f"{layer}.{part}"] = tensor.contiguous()
    return renamed


def main() -> None:
    """Write everything."""
    answers = {}
    for name, case in SMALL.items():
        network = twin(case)
        answers[name] = logits(case, network)
        state = published(case, network.float().state_dict())
        torch.save(state, HERE / f"{name}.zip.pth")
        torch.save(state, HERE / f"{name}.legacy.pth", _use_new_zipfile_serialization=False)
        if name == "vgg16":
            save_file(as_timm(state), HERE / f"{name}.timm.safetensors")
    np.savez_compressed(HERE / "small.npz", **answers)
    for name, case in FULL.items():
        network = twin(case)
        shapes = [(key, list(tensor.shape)) for key, tensor in network.state_dict().items()]
        answer = logits(case, network)
        np.savez_compressed(HERE / f"{name}_full.npz", shapes=json.dumps(shapes), logits=answer)


if __name__ == "__main__":
    main()
