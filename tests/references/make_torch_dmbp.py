"""DMBP in PyTorch as the paper writes it: masked ReLUs in autograd, double back-propagation.

Writes `torch_dmbp.npz`: five steps of `torch.optim.RMSprop` on the small networks, in float64.

    python tests/references/make_torch_dmbp.py
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "support"))

from small_networks import NETWORKS, make_image, make_params  # noqa: E402

STEPS, LABEL, SEED = 5, 1, 0
LOSSES = ("all", "positive-negative", "positive")


class MaskedReLU(torch.autograd.Function):
    """ReLU whose backward pass multiplies the cotangent by gate and mask (Eq. 8)."""

    @staticmethod
    def forward(ctx, z, mask):
        ctx.save_for_backward(z, mask)
        return z.clamp(min=0)

    @staticmethod
    def backward(ctx, cotangent):
        z, mask = ctx.saved_tensors
        return cotangent * (z > 0) * mask, None


class Network:
    """A small network with every additive constant as a leaf, so that ∇_b exists (Eq. 11)."""

    def __init__(self, layers, params):
        self.layers, self.biases = layers, []
        self.params = self._prepare(layers, params)

    def _prepare(self, layers, params):
        prepared = []
        for (kind, *options), p in zip(layers, params, strict=True):
            if kind in ("conv", "dense"):
                weight = torch.tensor(p["weight"])
                weight = weight.permute(3, 2, 0, 1) if kind == "conv" else weight.T
                prepared.append((weight, self._leaf(torch.tensor(p["bias"]))))
            elif kind == "norm":
                scale = torch.tensor(p["scale"] / np.sqrt(p["variance"] + 1e-5))
                constant = torch.tensor(p["offset"] - p["mean"] * scale.numpy())
                prepared.append((scale, self._leaf(constant)))
            elif kind == "residual":
                prepared.append(self._prepare(options[0], p))
            else:
                prepared.append(None)
        return prepared

    def _leaf(self, bias):
        self.biases.append(bias.requires_grad_(True))
        return bias

    def __call__(self, x, masks):
        self._masks = iter(masks) if masks is not None else None
        self.shapes = []
        return self._run(self.layers, self.params, x)

    def _run(self, layers, params, x):
        for (kind, *options), p in zip(layers, params, strict=True):
            if kind == "conv":
                x = F.conv2d(x, p[0], p[1], stride=options[2], padding=options[3])
            elif kind == "dense":
                x = F.linear(x, p[0], p[1])
            elif kind == "norm":
                x = x * p[0][:, None, None] + p[1][:, None, None]
            elif kind == "relu":
                self.shapes.append(tuple(x.shape))
                x = x.relu() if self._masks is None else MaskedReLU.apply(x, next(self._masks))
            elif kind == "max_pool":
                x = F.max_pool2d(x, *options)
            elif kind == "residual":
                x = x + self._run(options[0], p, x)
            elif kind == "flatten":
                x = x.permute(0, 2, 3, 1).flatten(1)
            elif kind == "mean":
                x = x.mean((2, 3))
        return x


def signed_part(network, x, masks):
    """y± and ∇ₓF± by Eq. 11 / 14, differentiable in the masks; the output bias left out."""
    x = x.clone().requires_grad_(True)
    logit = network(x, masks)[0, LABEL]
    inner = network.biases[:-1]
    grad_x, *grad_b = torch.autograd.grad(logit, [x, *inner], create_graph=True)
    total = (grad_x * x).sum() + sum((g * b).sum() for g, b in zip(grad_b, inner, strict=True))
    return total, grad_x


def optimise(layers, params, image, loss_name, steps=STEPS):
    """History (steps, 3) of y⁺, y⁻, ỹ; the masks after the steps; and both maps of those masks."""
    network = Network(layers, params)
    x = torch.tensor(image).permute(2, 0, 1)[None]
    y = (network(x, None)[0, LABEL] - network.biases[-1][LABEL]).detach()
    theta = [
        torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in network.shapes
    ]
    optimizer = torch.optim.RMSprop(theta, lr=0.01)
    history = []
    for _ in range(steps):
        masks = [torch.sigmoid(t) for t in theta]
        y_positive, _ = signed_part(network, x, masks)
        y_negative, _ = signed_part(network, x, [1 - mask for mask in masks])
        rest = y - y_positive - y_negative
        loss = {
            "all": y_negative - y_positive + rest.abs(),
            "positive-negative": y_negative - y_positive,
            "positive": -y_positive,
        }[loss_name]
        history.append([y_positive.item(), y_negative.item(), rest.item()])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    masks = [torch.sigmoid(t).detach() for t in theta]
    maps = []
    for signed in (masks, [1 - mask for mask in masks]):
        _, gradient = signed_part(network, x, signed)
        maps.append((gradient * x)[0].permute(1, 2, 0).detach().numpy())
    channels_last = [
        (mask.permute(0, 2, 3, 1) if mask.ndim == 4 else mask)[0].numpy() for mask in masks
    ]
    return np.array(history), channels_last, maps


def references():
    """Everything the test compares, as a flat dictionary of arrays."""
    arrays = {}
    for name, layers in NETWORKS.items():
        for loss in LOSSES:
            history, masks, (positive, negative) = optimise(
                layers, make_params(layers, SEED), make_image(SEED), loss
            )
            key = f"{name}/{loss}"
            arrays[f"{key}/history"] = history
            arrays[f"{key}/positive"] = positive
            arrays[f"{key}/negative"] = negative
            for index, mask in enumerate(masks):
                arrays[f"{key}/masks_{index}"] = mask
    return arrays


if __name__ == "__main__":
    np.savez_compressed(HERE / "torch_dmbp.npz", **references())
