"""From a state dict to Flax variables: match names and shapes, fold BatchNorm, once and strictly.

A state dict that does not fit is refused with the whole list of what is missing, unused, misshapen.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dmbp_jax.convert.checkpoint import read_checkpoint, read_file
from dmbp_jax.convert.tables import RENAMES, Layer, Shape, find_layer, table
from dmbp_jax.convert.variables import Variables, save_variables
from dmbp_jax.errors import InputError, KeyMismatchError, WeightsError
from dmbp_jax.files import read_json
from dmbp_jax.networks.class_names import read_labels
from dmbp_jax.networks.registry import Entry, find_entry
from dmbp_jax.version import __version__

_NORM = ("weight", "bias", "running_mean", "running_var")


def convert(
    state_dict: Mapping[str, np.ndarray], network: str, classes: int | None = None
) -> Variables:
    """Convert a PyTorch state dict of a named network to Flax variables.

    BatchNorm (in inference) is folded into the convolution before it, in float64:

        kernel ← kernel · γ / √(σ² + ε)        bias ← (bias − μ) · γ / √(σ² + ε) + β

    Understands the names of torchvision, timm and TorchRay, also with a prefix that all of them
    have, such as `model.` or `backbone.`. The first dense layer of a VGG is
    permuted from CHW to HWC order; the first convolution of a Caffe network from BGR to RGB.

    Args:
      state_dict: name to array, as `read_checkpoint` returns it.
      network: name, one of `dmbp_jax.list_networks()`.
      classes: number of classes of a fine-tuned network; None for the network's own.

    Returns:
      `{"params": …}`, float32, for `network`'s module.

    Raises:
      KeyMismatchError: names or shapes do not fit; every one is listed.
      WeightsError: a weight is not finite, or no floating-point number.
      InputError: no network has this name.

    Example:
      >>> convert({}, "resnet18")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      dmbp_jax.errors.KeyMismatchError: resnet18: 102 missing (conv1.weight, bn1.weight, ...
    """
    return convert_entry(state_dict, network, find_entry(network, classes))


def convert_entry(state_dict: Mapping[str, np.ndarray], name: str, entry: Entry) -> Variables:
    """`convert` for a row of the registry, or one like it."""
    if entry.checkpoint is None:
        raise InputError(f"network: Expected a network with a PyTorch checkpoint, got {name}.")
    if any(key.startswith("params/") for key in state_dict):
        raise WeightsError("Expected a PyTorch checkpoint, got weights that are converted already.")
    rows = table(entry.module, entry.checkpoint)
    target = target_shapes(entry)
    # A layer's weight is its kernel or scale: the leaf that is no bias.
    weights = {path: shape for path, shape in target.items() if not path.endswith("/bias")}
    found = {path: find_layer(layer_of(path), rows) for path in weights}

    expected: dict[str, tuple[Shape, ...]] = {}
    for path, layer in found.items():
        expected |= _expected(layer, weights[path])
    arrays, ambiguous = _rename(state_dict, RENAMES.get(type(entry.module), ()), expected)
    _compare(name, entry, arrays, expected, ambiguous)

    params: dict[str, np.ndarray] = {}
    for path, layer in found.items():
        weight, bias = _fold(layer, arrays, weights[path])
        # Smallest and largest number show every NaN and infinity, at a tenth of isfinite's cost.
        if not np.isfinite([weight.min(), weight.max(), bias.min(), bias.max()]).all():
            raise WeightsError(f"{layer.name}: Expected finite weights, got NaN or infinity.")
        params[path] = weight
        if f"params/{layer.path}/bias" in target:
            params[f"params/{layer.path}/bias"] = bias
    return unflatten_dict(params, sep="/")


def convert_file(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    network: str,
    labels: Sequence[str] | str | os.PathLike[str] | None = None,
) -> None:
    """Convert a checkpoint once, so that later loads only read it.

    Args:
      source: `.pth` or safetensors file of torchvision, timm or TorchRay.
      destination: safetensors file to write; it is written whole or not at all.
      network: name, one of `dmbp_jax.list_networks()`.
      labels: class names of a fine-tuned network, kept in the file; None for the network's own.

    Raises:
      WeightsError: as `read_checkpoint` and `convert`; or the destination cannot be written.
      InputError: no network has this name; or source and destination are the same file.
    """
    source, destination = Path(source), Path(destination)
    if source.resolve() == destination.resolve():
        raise InputError(f"destination: Expected another file than the source, got {destination}.")
    names = None if labels is None else read_labels(labels)
    metadata = {"format": f"dmbp-jax {__version__}", "network": network}
    if names is not None:
        metadata["classes"] = json.dumps(names)
    variables = convert(read_checkpoint(source), network, None if names is None else len(names))
    save_variables(destination, variables, metadata | {"source": source.name})


def read_weights(
    path: str | os.PathLike[str],
    network: str,
    labels: Sequence[str] | str | os.PathLike[str] | None = None,
) -> tuple[Entry, Variables, tuple[str, ...]]:
    """Read any weights file of a named network: converted already, or converted now.

    Args:
      path: file of `convert_file` or `save_variables`, or anything `read_checkpoint` reads.
      network: name, one of `dmbp_jax.list_networks()`.
      labels: class names; None for those in the file, or else the network's own.

    Returns:
      The network's row for this number of classes, its variables, its class names.

    Raises:
      WeightsError: as `read_checkpoint` and `convert`; or these are another network's weights.
      InputError: no network has this name.
    """
    arrays, metadata = read_file(path)
    try:
        names = _class_names(network, metadata) if labels is None else read_labels(labels)
        entry = find_entry(network, len(names))
        if not any(key.startswith("params/") for key in arrays):
            return entry, convert_entry(arrays, network, entry), names
        if metadata.get("network", network) != network:
            raise WeightsError(f"Expected weights of {network}, got {metadata['network']}.")
        expected = {key: (shape,) for key, shape in target_shapes(entry).items()}
        _compare(network, entry, arrays, expected, [])
        return entry, unflatten_dict(arrays, sep="/"), names
    except WeightsError as error:
        raise type(error)(f"{path}: {error}") from error


def _class_names(network: str, metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Class names kept in a converted file, or else the network's own."""
    if "classes" not in metadata:
        return find_entry(network).labels
    try:
        return read_labels(read_json(metadata["classes"]))
    except (ValueError, TypeError) as error:
        raise WeightsError("Expected the metadata 'classes' to be a JSON list of names.") from error


def target_shapes(entry: Entry) -> dict[str, Shape]:
    """Shape of every variable of a network, by abstract evaluation: nothing is allocated."""
    image = (1, entry.preprocessing.size, entry.preprocessing.size, 3)
    variables = jax.eval_shape(lambda: entry.module.init(jax.random.key(0), jnp.zeros(image)))
    return {key: leaf.shape for key, leaf in flatten_dict(variables, sep="/").items()}


def layer_of(path: str) -> str:
    """The layer of a parameter: `params/layer1_0/conv1/kernel` -> `layer1_0/conv1`."""
    return path.removeprefix("params/").rpartition("/")[0]


def _rename(
    state_dict: Mapping[str, np.ndarray],
    renames: Sequence[tuple[str, str]],
    expected: Collection[str],
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The state dict under torchvision's names, without batch counters; and names that collide.

    What all names begin with is taken off where none is an expected one with it.
    """
    names = [name for name in state_dict if not name.endswith("num_batches_tracked")]
    parts = os.path.commonprefix(names).split(".")[:-1]  # noqa: RUF071 (names are no paths)
    attempts = []
    for count in range(len(parts) + 1):
        prefix = "".join(f"{part}." for part in parts[:count])
        arrays, ambiguous = {}, []
        for key in names:
            name = key.removeprefix(prefix)
            for pattern, replacement in renames:
                name = re.sub(pattern, replacement, name)
            if name in arrays:
                ambiguous.append(key)
            arrays[name] = np.asarray(state_dict[key])
        if not arrays.keys().isdisjoint(expected):
            return arrays, ambiguous
        attempts.append((arrays, ambiguous))
    return attempts[0]


def _expected(layer: Layer, kernel: Shape) -> dict[str, tuple[Shape, ...]]:
    """Names that a layer is made of, and the shapes they may have."""
    expected = {f"{layer.source}.weight": layer.transform.shapes(kernel)} if layer.source else {}
    vectors = [f"{layer.source}.bias"] if layer.bias else []
    vectors += [f"{layer.norm}.{part}" for part in _NORM] if layer.norm else []
    return expected | dict.fromkeys(vectors, (kernel[-1:],))


def _compare(
    network: str,
    entry: Entry,
    arrays: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[Shape, ...]],
    ambiguous: Sequence[str],
) -> None:
    """Raise one error that lists everything that does not fit."""
    shapes = {key: array.shape for key, array in arrays.items()}
    wrong = [key for key in shapes if key in expected and shapes[key] not in expected[key]]
    lists = {
        "missing": [key for key in expected if key not in shapes],
        "unused": [key for key in shapes if key not in expected],
        "given twice": list(ambiguous),
        "misshapen": [f"{key}: Expected {expected[key][0]}, got {shapes[key]}" for key in wrong],
    }
    found = [f"{len(keys)} {kind} ({', '.join(keys)})" for kind, keys in lists.items() if keys]
    if not found:
        for key, array in arrays.items():
            if not jnp.issubdtype(array.dtype, jnp.floating):
                raise WeightsError(
                    f"{key}: Expected floating-point numbers, got {array.dtype}; weights that are "
                    "quantised have to be turned into these first."
                )
        return
    prefixes = Counter(
        key.removesuffix(name)
        for key in lists["unused"]
        for name in lists["missing"]
        if key.endswith(f".{name}")
    )
    prefix, count = next(iter(prefixes.most_common(1)), ("", 0))
    hint = ""
    if 2 * count > len(lists["missing"]):
        hint = f" {count} names fit without {prefix!r}: pass those alone, without it."
    classes = entry.module.classes  # pyrefly: ignore[missing-attribute]
    # Only the layer of the logits misfits, weight and bias: a fine-tuned network with its classes.
    ends = [(expected[key][0][0], expected[key][0][-1]) for key in wrong]
    if len(found) == 1 and len(wrong) > 1 and all(classes in pair for pair in ends):
        hint = " For other classes than the network's own, pass their names as labels."
    raise KeyMismatchError(f"{network}: {'; '.join(found)}.{hint}")


def _fold(
    layer: Layer, arrays: Mapping[str, np.ndarray], shape: Shape
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel (or scale) and bias of a layer in float32, its BatchNorm folded in float64."""
    kernel = np.ones(shape)  # of a BatchNorm on its own
    if layer.source:
        kernel = layer.transform.apply(arrays[f"{layer.source}.weight"], shape)
    bias = arrays[f"{layer.source}.bias"] if layer.bias else np.zeros(shape[-1])
    if layer.norm:
        gamma, beta, mean, variance = (
            arrays[f"{layer.norm}.{part}"].astype(np.float64) for part in _NORM
        )
        with np.errstate(invalid="ignore"):  # a negative variance is reported as not finite
            scale = gamma / np.sqrt(variance + layer.epsilon)
        kernel = kernel.astype(np.float64) * scale
        bias = (bias.astype(np.float64) - mean) * scale + beta
    return np.ascontiguousarray(kernel, np.float32), np.ascontiguousarray(bias, np.float32)
