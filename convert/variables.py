"""Flax variables as one safetensors file: written atomically, read back as they were.

Keys are paths in the variables joined by "/": `params/layer1_0/conv1/kernel`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dmbp_jax.errors import CorruptCheckpointError, WeightsError
from dmbp_jax.files import replacing

Variables = dict[str, Any]  # nested, arrays at the ends


def save_variables(
    path: str | os.PathLike[str], variables: Mapping[str, Any], metadata: Mapping[str, str]
) -> None:
    """Write variables to a safetensors file, whole or not at all.

    Args:
      path: the file; one of that name is replaced.
      variables: nested dict of arrays, as `module.init` returns it.
      metadata: strings kept in the file's header.

    Raises:
      WeightsError: the file cannot be written.

    Example:
      >>> import tempfile
      >>> variables = {"params": {"bias": np.zeros(3, np.float32)}}
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_variables(f"{folder}/net.safetensors", variables, {"network": "mine"})
      ...     load_variables(f"{folder}/net.safetensors")["params"]["bias"].shape
      (3,)
    """
    path = Path(path)
    flat = flatten_dict(dict(variables), sep="/")
    arrays = {key: np.ascontiguousarray(value) for key, value in flat.items()}
    try:
        with replacing(path) as part:
            save_file(arrays, part, dict(metadata))
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot be written: {error}") from error


def load_variables(path: str | os.PathLike[str]) -> Variables:
    """Read a file of `save_variables`: a nested dict of NumPy arrays.

    Raises:
      CorruptCheckpointError: truncated, or not a safetensors file.
      WeightsError: the file is missing.
    """
    arrays = read_safetensors(path)[0]
    try:
        return unflatten_dict(arrays, sep="/")
    except (IndexError, TypeError) as error:
        raise CorruptCheckpointError(
            f"{path}: Expected names of arrays, got one that is both an array and a folder of them."
        ) from error


def read_safetensors(
    path: str | os.PathLike[str],
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of any safetensors file."""
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            dtypes = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
            arrays = {key: file.get_tensor(key) for key in dtypes if dtypes[key] != "BF16"}
        if len(arrays) < len(dtypes):  # NumPy has no bfloat16 of its own
            with safe_open(path, "flax") as file:
                for key in dtypes.keys() - arrays.keys():
                    arrays[key] = np.asarray(file.get_tensor(key), ml_dtypes.bfloat16)
    except SafetensorError as error:
        raise CorruptCheckpointError(
            f"{path}: Expected a whole safetensors file, got: {error}"
        ) from error
    except (TypeError, AttributeError) as error:  # of 8 bits and less
        raise WeightsError(f"{path}: Expected dtypes NumPy knows, got {error}") from error
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from error
    return {key: arrays[key] for key in dtypes}, metadata
