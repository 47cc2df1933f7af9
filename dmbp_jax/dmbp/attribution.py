"""What `attribute` returns: signed maps, the terms of Eq. 9 and their history, as one pytree."""

import io
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from dmbp_jax.engine.meshes import on_any_mesh
from dmbp_jax.errors import DataError, InputError, InputTypeError
from dmbp_jax.files import replacing
from dmbp_jax.graph.call import only_where, take_rows
from dmbp_jax.graph.model import is_traced

_FORMAT = 3  # raised when the layout of a saved file changes


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Attribution:
    """Signed attribution maps of a batch; for a single image the leading N is absent everywhere.

    Attributes:
      positive: (N, H, W, C), ∇ₓF_σ ⊙ x: evidence for the label.
      negative: (N, H, W, C), ∇ₓF_{1−σ} ⊙ x: evidence against it.
      y: (N,), the label's logit without the output bias, F(x) − F_0.
      y_positive: (N,), y⁺, evidence for the label.
      y_negative: (N,), y⁻, evidence against it.
      y_nuisance: (N,), ỹ, the rest: y = y⁺ + y⁻ + ỹ + y_bias.
      y_bias: (N,), the part of y that the objective does not count: 0 with evidence "all", the
        biases' part Σ∇bᵀb of the network itself with evidence "input".
      carried: (N, 2), for each sign the share of its evidence that the pixels carry, in [0, 1]:
        |Σ map| / (|Σ map| + |Σ∇bᵀb|) of F_σ and F_{1−σ}. Near 0 a map shows almost nothing of
        what was decided, whatever it looks like.
      label: (N,) int32, the class explained.
      history: (N, steps, 3), y⁺, y⁻ and ỹ of the masks before each step.
      status: (N,) bool, True where every number of that image is finite.
      logits: (N, classes), what the network says of the image, with the output bias; None in a
        file of dmbp-jax 0.2.
      masks: tuple of one (N, ...) array per ReLU when asked for, else None.
      frozen: names of the factors that were constants at x (`attribute(nonaffine="freeze")`);
        empty for a network without any. Static.

    The maps are never normalised; that belongs to pictures (`dmbp_jax.pictures`). `att[i]` is the
    attribution of one image; `att[1:3]`, `att[[0, 2]]` and `att[np.asarray(att.status)]` are those
    of several; a loop over it goes from image to image.
    """

    positive: jax.Array
    negative: jax.Array
    y: jax.Array
    y_positive: jax.Array
    y_negative: jax.Array
    y_nuisance: jax.Array
    y_bias: jax.Array
    carried: jax.Array
    label: jax.Array
    history: jax.Array
    status: jax.Array
    logits: jax.Array | None = None
    masks: tuple[jax.Array, ...] | None = None
    frozen: tuple[str, ...] = field(metadata={"static": True}, default=())

    @property
    def map(self) -> jax.Array:
        """`positive + negative`, (N, H, W, C)."""
        return self.positive + self.negative

    @property
    def heatmap(self) -> jax.Array:
        """`map` summed over colour channels, (N, H, W)."""
        return self.map.sum(-1)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything to one `.npz` file, atomically.

        Returns:
          The path written (`.npz` is appended when absent).

        Example:
          >>> attribution.save("dog.npz")  # doctest: +SKIP
        """
        target = Path(path)
        if target.suffix != ".npz":
            target = target.with_name(target.name + ".npz")
        arrays: dict[str, Any] = {"format": np.int64(_FORMAT)}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name == "masks":
                for index, mask in enumerate(value or ()):
                    arrays[f"masks_{index}"] = np.asarray(mask)
            elif value is not None:
                arrays[one.name] = np.asarray(value, np.str_ if one.name == "frozen" else None)
        with replacing(target) as part:
            np.savez_compressed(part, **arrays)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Attribution":
        """Read what `save` wrote, also of dmbp-jax 0.2.

        Raises:
          OSError: no such file, or one that cannot be read.
          DataError: not a file written by `save`, truncated or damaged.
        """
        data = Path(path).read_bytes()
        try:
            return cls(**_fields_of(data))
        except Exception as error:  # all of it is in memory: whatever goes wrong is the content
            raise DataError(f"{path}: Expected a saved Attribution, got: {error}") from error

    @on_any_mesh("self")
    def __getitem__(self, index: Any) -> "Attribution":
        """The attribution of one image of a batch, or of several.

        Args:
          index: an int; or a slice, (K,) ints or (N,) bools, for an attribution of several images.
            A traced one of no image gives NaN and `status` False.

        Raises:
          InputError: it is the attribution of a single image.
          InputTypeError: an index of another kind.
          IndexError: there is no such image.
        """
        count = self._count("index")
        if not is_traced(index):
            return take_rows(self, _places(index, count))
        with jax.numpy_dtype_promotion("standard"):
            signed = index.astype(jnp.promote_types(index.dtype, jnp.int32))
        known = (signed >= -count) & (signed < count)
        return jax.tree.map(partial(only_where, known), take_rows(self, index))

    def __iter__(self) -> "Iterator[Attribution]":
        """The attributions of the images of a batch, one after the other."""
        return (self[index] for index in range(self._count("iterate over")))

    def __len__(self) -> int:
        """Number of images of a batch."""
        if self.y.ndim == 0:
            raise TypeError("The attribution of a single image has no length.")
        return self.y.shape[0]

    def _count(self, verb: str) -> int:
        if self.y.ndim == 0:
            raise InputError(f"Expected a batch to {verb}, got the attribution of a single image.")
        return len(self)


def _places(index: Any, count: int) -> np.ndarray:
    """What an index of a batch stands for: () or (K,) int32, all in [0, count)."""
    expected = "Expected an int, a slice, (K,) ints or (N,) bools"
    if not isinstance(index, slice):
        index = np.asarray(index) if np.size(index) else np.zeros(0, np.int32)
        if f"{index.dtype.kind}{index.ndim}" not in ("i0", "u0", "i1", "u1", "b1"):
            what = f"{index.dtype} of shape {index.shape}"
            raise InputTypeError(f"index: {expected}, got {what}.")
    try:
        return np.arange(count, dtype=np.int32)[index]
    except IndexError as error:
        raise IndexError(f"index: Expected a batch of more images than {count}: {error}.") from None
    except TypeError as error:  # slice("a", None)
        raise InputTypeError(f"index: {expected}, got {index}.") from error


def _fields_of(data: bytes) -> dict[str, Any]:
    """The fields of a saved attribution."""
    with zipfile.ZipFile(io.BytesIO(data)) as stored:
        # Each member whole, so that its checksum is compared before NumPy reads the first number.
        arrays = {name: stored.read(name) for name in stored.namelist()}
    read = {
        name.removesuffix(".npy"): np.load(io.BytesIO(content), allow_pickle=False)
        for name, content in arrays.items()
    }
    version = int(read.pop("format", -1))
    read.pop("steps", None)  # of an early stop, which dmbp-jax 0.2 had
    if version not in (2, _FORMAT):
        raise DataError(f"no file of format {_FORMAT}")
    if version == 2 and read["history"].ndim == 3:  # was (steps, N, 3)
        read["history"] = read["history"].swapaxes(0, 1)
    frozen = tuple(map(str, read.pop("frozen")))
    count = sum(name.startswith("masks_") for name in read)
    masks = tuple(jnp.asarray(read.pop(f"masks_{index}")) for index in range(count))
    if len({array.shape[: read["y"].ndim] for array in (*read.values(), *masks)}) != 1:
        raise DataError("arrays of different numbers of images")
    found = {name: jnp.asarray(array) for name, array in read.items()}
    return {**found, "masks": masks or None, "frozen": frozen}


# Programs that return one can be kept on disk (`engine/kept_programs.py`). A module that is loaded
# again finds the name taken, and programs with its class are then not kept.
with suppress(ValueError):
    export.register_pytree_node_serialization(
        Attribution,
        serialized_name="dmbp_jax.Attribution",
        serialize_auxdata=lambda static: json.dumps(static[0]).encode(),
        deserialize_auxdata=lambda names: (tuple(json.loads(bytes(names))),),
    )
