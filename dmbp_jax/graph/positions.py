"""Where the rows and columns of the image are in every value of a network: one pass from x.

The layout of x is known, (N, H, W, C); `labels` says what each operation does to it. What cannot be
told is refused by name by whoever needs positions (`as_picture`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.errors import UnknownAxesError
from dmbp_jax.graph.labels import SLACK, Follower, Label, Labels, changing, distinct
from dmbp_jax.graph.program import Site
from dmbp_jax.graph.steps import Step


def find_positions(steps: Sequence[Step], image: int, shape: tuple[int, ...]) -> dict[int, Labels]:
    """Rows and columns, in pixels, of every value that depends on x, of shape (1, H, W, C)."""
    rows, columns = (np.arange(size, dtype=float) for size in shape[1:3])
    of_image = rows.reshape(1, -1, 1, 1), columns.reshape(1, 1, -1, 1)
    found: dict[int, Labels] = {
        image: tuple((label,) if label.size > 1 else () for label in of_image)
    }
    for _ in Follower().follow(steps, found):
        pass
    return {name: changing(labels) for name, labels in found.items()}


class Reading(NamedTuple):
    """How a value is read as a picture: its axes with positions first, their elements in order."""

    axes: tuple[int, ...]
    order: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


def as_picture(value: jax.Array, site: Site) -> jax.Array:
    """The value of a site as (1, rows, columns, features); the class token of a ViT is left out."""
    axes, order, rows, columns = check_positions(site)
    moved = jnp.moveaxis(value, axes, range(len(axes)))
    moved = moved.reshape(-1, *moved.shape[len(axes) :])
    if not np.array_equal(order, np.arange(len(moved))):
        moved = moved[order]
    return moved.reshape(1, len(rows), len(columns), -1)


def check_positions(site: Site) -> Reading:
    """How the value of a site is read, where its rows and columns are a grid on the whole image."""
    unknown = UnknownAxesError(
        f"Expected layers whose rows and columns can be followed from the image, got "
        f"{site.name!r} of shape {site.shape}, which was reached by rolling, gathering or "
        "mixing positions."
    )
    if any(len(kind) > 1 for kind in site.labels):
        raise unknown
    none = np.zeros((1,) * len(site.shape))
    labels = [kind[0] if kind else none for kind in site.labels]
    axes = tuple(a for a in range(none.ndim) if any(label.shape[a] > 1 for label in labels))
    if _holds_parts_and_features(labels, axes, site.shape):
        raise unknown
    rows, columns = (
        np.broadcast_to(
            label.reshape([label.shape[a] for a in axes]), [site.shape[a] for a in axes]
        ).ravel()
        for label in labels
    )
    order = np.lexsort((columns, rows))
    order = order[~np.isnan(rows + columns)[order]]  # without what is no position
    sizes = [np.unique(label[order]) for label in (rows, columns)]
    grid = np.repeat(sizes[0], len(sizes[1])), np.tile(sizes[1], len(sizes[0]))
    times, left = divmod(len(order), max(1, len(grid[0])))
    if left or not all(
        np.array_equal(label[order], line.repeat(times))
        for label, line in zip((rows, columns), grid, strict=True)
    ):
        raise unknown
    if not all(map(_is_whole, sizes, site.extent)):
        raise unknown
    return Reading(axes, order, *sizes)


def _is_whole(numbers: np.ndarray, extent: int) -> bool:
    """Whether rows follow each other at one distance and lie in the middle of the image."""
    if len(numbers) < 2:
        return len(numbers) == 1
    steps = np.diff(numbers)
    start, end = numbers[0] - steps[0] / 2 + 0.5, numbers[-1] + steps[0] / 2 + 0.5
    return np.allclose(steps, steps[0]) and abs(start - (extent - end)) <= SLACK * steps[0]


def _holds_parts_and_features(
    labels: Sequence[Label], axes: Sequence[int], shape: tuple[int, ...]
) -> bool:
    """Whether parts of rows lie beside features, as in a pixel shuffle, or features: who knows."""
    beside = [axis for axis, size in enumerate(shape) if axis not in axes and size > 1]
    for axis in axes:
        at = tuple(slice(None) if one == axis else slice(1) for one in range(len(shape)))
        lines = np.stack(np.broadcast_arrays(*(label[at].ravel() for label in labels)))
        lines = lines[:, ~np.isnan(lines).any(0)]
        if distinct(list(lines)) < lines.shape[1]:
            beside.append(axis)
    return len(beside) > 1 and not set(beside).isdisjoint(axes)
