"""What `attribute` returns: signed maps, the terms of Eq. 9 and their history, as one pytree."""

import json
import os
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from dmbp_jax.errors import DataError, InputError
from dmbp_jax.files import replacing

_FORMAT = 2  # raised when the layout of a saved file changes


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
      history: (steps, N, 3), y⁺, y⁻ and ỹ of the masks before each step.
      status: (N,) bool, True where every number of that image is finite.
      steps: (N,) int32, optimiser steps taken; fewer than asked for after an early stop.
      masks: tuple of one (N, ...) array per ReLU when asked for, else None.
      frozen: names of the factors that were constants at x (`attribute(nonaffine="freeze")`);
        empty for a network without any. Static.

    The maps are never normalised; that belongs to pictures (`dmbp_jax.pictures`).
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
    steps: jax.Array
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
            else:
                arrays[one.name] = np.asarray(value, np.str_ if one.name == "frozen" else None)
        with replacing(target) as part:
            np.savez_compressed(part, **arrays)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Attribution":
        """Read what `save` wrote.

        Raises:
          FileNotFoundError: no such file.
          DataError: not a file written by `save`, or truncated.
        """
        names = [one.name for one in fields(cls) if one.name not in ("masks", "frozen")]
        try:
            with np.load(path, allow_pickle=False) as stored:
                if "format" not in stored or int(stored["format"]) != _FORMAT:
                    raise DataError(f"{path}: Expected a saved Attribution of format {_FORMAT}.")
                values = {name: jnp.asarray(stored[name]) for name in names}
                count = sum(name.startswith("masks_") for name in stored.files)
                frozen = tuple(map(str, stored["frozen"]))
                masks = tuple(jnp.asarray(stored[f"masks_{index}"]) for index in range(count))
        except (zipfile.BadZipFile, KeyError, ValueError, EOFError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}: Expected a saved Attribution, got: {error}") from error
        return cls(**values, masks=masks or None, frozen=frozen)

    def __getitem__(self, index: int) -> "Attribution":
        """The attribution of one image of a batch."""
        if self.y.ndim == 0:
            raise InputError("Expected a batch to index, got the attribution of a single image.")
        if not -self.y.shape[0] <= index < self.y.shape[0]:
            raise IndexError(f"Expected an index below {self.y.shape[0]}, got {index}.")
        return jax.tree.map(lambda a: a[index], self.replace_history(self.history.swapaxes(0, 1)))

    def __len__(self) -> int:
        """Number of images of a batch."""
        if self.y.ndim == 0:
            raise TypeError("The attribution of a single image has no length.")
        return self.y.shape[0]

    def replace_history(self, history: jax.Array) -> "Attribution":
        """The same attribution with another `history`."""
        return replace(self, history=history)


# Programs that return one can be kept on disk (`engine/kept_programs.py`). A module that is loaded
# again finds the name taken, and programs with its class are then not kept.
with suppress(ValueError):
    export.register_pytree_node_serialization(
        Attribution,
        serialized_name="dmbp_jax.Attribution",
        serialize_auxdata=lambda static: json.dumps(static[0]).encode(),
        deserialize_auxdata=lambda names: (tuple(json.loads(bytes(names))),),
    )
