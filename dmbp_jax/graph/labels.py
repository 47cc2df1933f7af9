"""Labels: the row, the column or the image that every element of a value comes from.

A label is an array that broadcasts to the value, with one number for each of its elements; an axis
along which nothing changes has length 1. Every operation says what becomes of the labels of its
operands. NaN is something else (a class token), and a label of nothing but NaN is lost. A value may
have several labels of one kind, as queries times keys have two rows, or none, as a mean over rows.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import jax
import numpy as np

from dmbp_jax.graph.operations import POINTWISE
from dmbp_jax.graph.orders import parts
from dmbp_jax.graph.pieces import FrozenFactor
from dmbp_jax.graph.steps import Constant, Operand, Step, interpret, needed_for, read
from dmbp_jax.graph.windows import windows

_ROUNDING = 1e-6  # of a cell: positions are sums of floats
CROPPED = 1 + _ROUNDING  # cells that a layer may leave out, as where a residual is cut to size
SLACK = 3 + _ROUNDING  # cells by which two layers may lie apart, as strides and pads do

Label = np.ndarray
Labels = tuple[tuple[Label, ...], ...]  # of every kind, such as rows and columns


class Follower:
    """Follows labels through the steps of a program.

    Attributes:
      exact: whether a sum of elements with different labels has lost them, as with images; else it
        has their mean, as with rows and columns.
    """

    def __init__(self, exact: bool = False):
        self.exact = exact
        self._literals: set[Operand] = set()  # constants that no array of the network is read for
        self._literal_steps: list[Step] = []  # that make them
        self._known: dict[Operand, np.ndarray] = {}  # values of some of them
        self._mixture: bool | None = None  # whether a product mixes positions
        self._kinds_summed = 0  # that change along what it sums

    def follow(self, steps: Sequence[Step], found: dict[int, Labels]) -> Iterator[Step]:
        """Add the labels of all values to those of x; yields each step that depends on x."""
        for step in steps:
            read = [found.get(o) if isinstance(o, int) else None for o in step.operands]
            if isinstance(step.piece, FrozenFactor):  # from which rows to which, of an attention
                yield from self.follow(step.piece.nodes, found)
                if step.piece.value in found:
                    found[step.results[0]] = found[step.piece.value]
            elif any(one is not None for one in read):
                kinds = range(len(next(one for one in read if one is not None)))
                if step.name == "dot_general":
                    several = read if self.exact else [one and changing(one) for one in read]
                    self._mixture = self._mixes(step, several)
                for number, name in enumerate(step.results):
                    found[name] = tuple(self._one_kind(step, read, k, number) for k in kinds)
                yield step
            elif all(map(self._is_literal, step.operands)):
                self._literals.update(step.results)
                self._literal_steps.append(step)

    def _one_kind(
        self, step: Step, read: Sequence[Labels | None], kind: int, number: int
    ) -> tuple[Label, ...]:
        """The labels of one kind of one result of a step."""
        shape = step.equation.outvars[number].aval.shape
        each = [() if labels is None else labels[kind] for labels in read]
        singles: list[Label] = []  # of values that come from one row
        if not self.exact:
            singles = [label for labels in each for label in labels if label.size == 1]
            if (joined := self._side_by_side(step, each)) is not None:
                return (joined,)
            each = changing(each)
        if step.name == "stack":
            at = step.params["axis"]
            each = [tuple(np.expand_dims(one, at) for one in labels) for labels in each]
        if step.name in ("concatenate", "stack"):
            joined = self._concatenated(step, each)
            if joined is not None:
                return self._different([joined])
        if step.name in _WRITES and not self.exact and each[0] and read[_WRITES[step.name]]:
            return self._different([self._written(step, each)])
        move = _MOVES.get(step.name)
        if move is None and (step.piece is not None or step.name in _ELEMENTWISE):
            move = Follower._keep
        moved = [
            _lost(shape) if move is None else move(self, step, label, side, number)
            for side, labels in enumerate(each)
            for label in labels
        ]
        labels = [label for label in moved if label is not None]
        if step.name == "select_n" and not self.exact:  # of one or the other, and not a sum
            labels = [one for one in labels if one.size > 1 and is_lost(one)][:1] or labels
        different = self._different(labels)
        if step.name in ("slice", "split"):  # a mean of all rows is nowhere
            singles += [label for label in map(_narrowed, labels) if label.size == 1]
        if different or self.exact or not singles:
            return different
        numbers = np.unique([label.item() for label in singles])
        return (np.full([1] * len(shape), numbers[0] if len(numbers) == 1 else np.nan),)

    def _different(self, labels: Sequence[Label]) -> tuple[Label, ...]:
        """Each once. What is known of one of several values that are added is known of all."""
        kept: list[Label] = []
        for label in map(_narrowed, labels):
            if label.size == 1 and not self.exact:
                continue
            for at, other in enumerate(kept):
                wide, narrow = sorted((other, label), key=np.size, reverse=True)
                axes = [axis for axis, n in enumerate(narrow.shape) if n == 1]
                if self._agree(self._mean(wide, axes), narrow):  # a mean says nothing more
                    kept[at] = wide
                    break
            else:
                kept.append(label)
        return tuple(kept if self.exact else [one for one in kept if not is_lost(one)] or kept)

    def _agree(self, one: Label, other: Label) -> bool:
        if one.shape != other.shape or np.array_equal(one, other, equal_nan=True):
            return one.shape == other.shape
        slack = 0 if self.exact else SLACK * cell(one)
        if not np.allclose(one, other, rtol=0, atol=slack, equal_nan=True):
            return False
        along = np.nansum((one - np.nanmean(one)) * (other - np.nanmean(other)))
        return bool(along >= 0)  # else one is mirrored

    def _keep(self, step: Step, label: Label, side: int, number: int) -> Label:
        """Element by element."""
        shape = step.equation.outvars[number].aval.shape
        if label.ndim != len(shape):
            return label.reshape([1] * len(shape)) if label.size == 1 else _lost(shape)
        fits = all(one in (1, size) for one, size in zip(label.shape, shape, strict=True))
        return label if fits else _lost(shape)

    def _transpose(self, step: Step, label: Label, side: int, number: int) -> Label:
        return label.transpose(step.params["permutation"])

    def _along(self, step: Step, label: Label, side: int, number: int) -> Label:
        """An operation that works along some of the axes."""
        axes = np.ravel([v for k, v in step.params.items() if k in ("axis", "dimension")])
        is_told = step.name.startswith("cum") and not self.exact
        return label if is_told else _lost_along(label, axes, step.shape)

    def _mirror(self, step: Step, label: Label, side: int, number: int) -> Label:
        axes = step.params["dimensions"]
        return _lost_along(label, axes, step.shape) if self.exact else np.flip(label, axes)

    def _reduce(self, step: Step, label: Label, side: int, number: int) -> Label:
        axes = step.params.get("axes", step.params.get("dimensions"))
        return self._mean(label, axes).squeeze(tuple(axes))

    def _mean(self, label: Label, axes: Sequence[int]) -> Label:
        if self.exact and any(label.shape[axis] > 1 for axis in axes):
            return np.full([1 if at in axes else n for at, n in enumerate(label.shape)], np.nan)
        return label.mean(tuple(axes), keepdims=True)

    def _broadcast(self, step: Step, label: Label, side: int, number: int) -> Label:
        shape = [1] * len(step.shape)
        for at, size in zip(step.params["broadcast_dimensions"], label.shape, strict=True):
            shape[at] = size
        return label.reshape(shape)

    def _reshape(self, step: Step, label: Label, side: int, number: int) -> Label:
        shape = step.shapes[side]
        if step.params["dimensions"] is not None or 0 in shape:
            return _lost(step.shape)
        wide, made = list(label.shape), [1] * len(step.shape)
        for old, new in parts(shape, step.shape):
            if any(label.shape[axis] > 1 for axis in old):
                for axis in old:
                    wide[axis] = shape[axis]
                for axis in new:
                    made[axis] = step.shape[axis]
        return np.broadcast_to(label, wide).reshape(made)

    def _convolution(self, step: Step, label: Label, side: int, number: int) -> Label:
        numbers = step.params["dimension_numbers"]
        if side > 0 or step.params["batch_group_count"] > 1:
            return _lost(step.shape)
        places = np.argsort(numbers.lhs_spec)
        sizes = [step.shape[numbers.out_spec[place]] for place in places]
        made = self._slide(step, self._mean(label, [numbers.lhs_spec[1]]), sizes)
        return made.transpose(numbers.lhs_spec).transpose(np.argsort(numbers.out_spec))

    def _pool(self, step: Step, label: Label, side: int, number: int) -> Label:
        return self._slide(step, label, step.shape)

    def _pad(self, step: Step, label: Label, side: int, number: int) -> Label | None:
        if side > 0:  # of what is around
            return _lost(step.shape) if self.exact else None
        return self._slide(step, label, step.shape)

    def _slide(self, step: Step, label: Label, out: Sequence[int]) -> Label:
        """Every result lies in the middle of what its window read."""
        for axis, (size, stride, (low, _), dilation, spread) in windows(step).items():
            if label.shape[axis] == 1:
                continue
            if out[axis] == 1:
                label = self._mean(label, [axis])
                continue
            line = _line(label, axis)
            if line is None or (self.exact and size > 1):
                return _lost([n if n == 1 else out[at] for at, n in enumerate(label.shape)])
            middle = (np.arange(out[axis]) * stride - low + (size - 1) * dilation / 2) / spread
            first, width = line
            label = first + width * middle.reshape([-1] + [1] * (label.ndim - 1 - axis))
        return label

    def _slice(self, step: Step, label: Label, side: int, number: int) -> Label:
        starts, stops = step.params["start_indices"], step.params["limit_indices"]
        strides = step.params["strides"] or (1,) * label.ndim
        for axis, cut in enumerate(map(slice, starts, stops, strides)):
            label = self._cut(label, axis, cut)
        return label

    def _split(self, step: Step, label: Label, side: int, number: int) -> Label:
        sizes, start = step.params["sizes"], sum(step.params["sizes"][:number])
        return self._cut(label, step.params["axis"], slice(start, start + sizes[number]))

    def _cut(self, label: Label, axis: int, part: slice) -> Label:
        """Part of an axis; a map of the middle is not one of the picture, and one row is no map."""
        if label.shape[axis] == 1:
            return label
        kept = label[(slice(None),) * axis + (part,)]
        if not self.exact and kept.shape[axis] > 1 and not np.isnan(kept).all():
            left_out = max(np.nanmin(kept), 0) - max(np.nanmin(label), 0)
            if left_out > CROPPED * cell(label):
                return _lost(kept.shape)
        return kept

    def _resized(self, step: Step, label: Label, side: int, number: int) -> Label:
        """Some elements along an axis, nobody knows which."""
        if side > 0 or label.ndim != len(step.shape):
            return _lost(step.shape)
        pairs = enumerate(zip(step.shapes[0], step.shape, strict=True))
        return _lost_along(label, [at for at, (old, new) in pairs if old != new], step.shape)

    def _gather(self, step: Step, label: Label, side: int, number: int) -> Label:
        numbers, sizes = step.params["dimension_numbers"], step.params["slice_sizes"]
        whole = [one == length for one, length in zip(sizes, step.shapes[0], strict=True)]
        is_picked = any(n > 1 and not all_ for n, all_ in zip(label.shape, whole, strict=False))
        if side > 0 or getattr(numbers, "operand_batching_dims", ()):
            return _lost(step.shape)
        shape = [
            1 if not is_picked or at in numbers.offset_dims else size
            for at, size in enumerate(step.shape)
        ]
        kept = [at for at in range(label.ndim) if at not in numbers.collapsed_slice_dims]
        for into, at in zip(numbers.offset_dims, kept, strict=True):
            if label.shape[at] > 1:
                shape[into] = step.shape[into]
        return _lost(shape) if is_picked else label.reshape(shape)

    def _side_by_side(self, step: Step, each: Sequence[tuple[Label, ...]]) -> Label | None:
        """The label of single rows that are put together again; None of anything else."""
        if step.name not in ("concatenate", "stack") or any(
            label.size > 1 for labels in each for label in labels
        ):
            return None
        at = step.params["axis" if step.name == "stack" else "dimension"]
        numbers = [labels[0].item() if labels else np.nan for labels in each]
        if step.shape[at] != len(each) or len(np.unique(numbers)) == 1:
            return None
        if np.isnan(numbers).any():
            return _lost([n if axis == at else 1 for axis, n in enumerate(step.shape)])
        return np.reshape(numbers, [-1 if axis == at else 1 for axis in range(len(step.shape))])

    def _concatenated(self, step: Step, each: Sequence[tuple[Label, ...]]) -> Label | None:
        """The label of parts side by side; None where they have one and the same."""
        is_stack, labels = step.name == "stack", [label for one in each for label in one]
        at = step.params["axis" if is_stack else "dimension"]
        is_one = all(self._agree(label, labels[0]) for label in labels)
        if not labels or (is_one and labels[0].shape[at] == 1):
            return None
        shapes = [label.shape[:at] + label.shape[at + 1 :] for label in labels]
        changing = [label for label in labels if label.shape[at] > 1]
        if any(map(is_lost, labels)) or (len(changing) > 1 and not self.exact):
            moves = [
                any(label.shape[axis] > 1 for label in labels) for axis in range(len(step.shape))
            ]
            return _lost([n if moves[axis] else 1 for axis, n in enumerate(step.shape)])
        if max(map(len, each)) > 1 or (len(changing) == 0 and not self.exact):
            return None
        around = list(np.broadcast_shapes(*shapes))
        sizes = [1 if is_stack else shape[at] for shape in step.shapes]
        parts = [
            np.broadcast_to(one[0] if one else np.nan, [*around[:at], size, *around[at:]])
            for one, size in zip(each, sizes, strict=True)
        ]
        return np.concatenate(parts, at)

    def _written(self, step: Step, each: Sequence[tuple[Label, ...]]) -> Label:
        """The label of a value, with that of another one where it is written over it."""
        at = _WRITES[step.name]
        places = [one for side, one in enumerate(step.operands) if side not in (0, at)]
        if len(each[0]) > 1 or len(each[at]) > 1 or not all(map(self._is_literal, places)):
            return _lost(step.shape)
        value, written = (
            np.broadcast_to(each[side][0] if each[side] else np.nan, step.shapes[side])
            for side in (0, at)
        )
        where = [self._value(one).astype(int) for one in places]
        with jax.ensure_compile_time_eval():
            if step.name == "scatter":
                numbers, mode = step.params["dimension_numbers"], step.params["mode"]
                made = jax.lax.scatter(value, where[0], written, numbers, mode=mode)
            else:
                made = jax.lax.dynamic_update_slice(value, written, where)
        return np.asarray(made, float)

    def _mixes(self, step: Step, read: Sequence[Labels | None]) -> bool | None:
        """Whether a product with a constant sums over positions alone: each result is of them all.

        Beside features, as in a dense layer of a flattened value, the results are features. None
        where both operands depend on x.
        """
        if all(one is not None for one in read):
            return None
        side = 0 if read[0] is not None else 1
        summed = step.params["dimension_numbers"][0][side]
        at = tuple(
            slice(None) if axis in summed else slice(1) for axis in range(len(step.shapes[side]))
        )
        sizes = [n if axis in summed else 1 for axis, n in enumerate(step.shapes[side])]
        lines = [np.broadcast_to(label[at], sizes) for one in read[side] or () for label in one]
        self._kinds_summed = sum(
            any(label[at].size > 1 for label in one) for one in read[side] or ()
        )
        return distinct(lines) == math.prod(sizes)

    def _product(self, step: Step, label: Label, side: int, number: int) -> Label:
        summed, batch = (each[side] for each in step.params["dimension_numbers"])
        gone = [axis for each in step.params["dimension_numbers"] for axis in each[1 - side]]
        new = [size for axis, size in enumerate(step.shapes[1 - side]) if axis not in gone]
        free = [axis for axis in range(label.ndim) if axis not in (*summed, *batch)]

        def arranged(label: Label) -> Label:
            moved = label.transpose(*batch, *free, *summed)
            return moved.reshape(*moved.shape[: len(batch) + len(free)], *[1] * len(new))

        is_literal = self._is_literal(step.operands[1 - side])
        is_resize = is_literal and len(summed) == len(new) == self._kinds_summed == 1
        line = _line(label, summed[0]) if is_resize and not self.exact else None
        made = arranged(self._mean(label, summed))
        is_told, is_summed = not is_lost(label), any(label.shape[axis] > 1 for axis in summed)
        if not is_summed or self._mixture is None:
            pass
        elif self._mixture and line and (places := self._places(step, 1 - side)) is not None:
            first, width = map(arranged, line)
            made = first + width * places
        elif self._mixture if is_told else len(summed) == 1 and len(free) > 1:
            made = _lost([*made.shape[: len(batch) + len(free)], *new])
        if side == 1:
            made = np.moveaxis(
                made, range(len(batch), len(batch) + len(free)), range(-len(free), 0)
            )
        return made

    def _places(self, step: Step, side: int) -> np.ndarray | None:
        """Where the results of a product with a literal lie, counted in what it sums.

        Those of a resize lie as `jax.image.resize` puts them. Other results lie in the middle of
        what they read, as those of a permutation do; None where that is not one place.
        """
        weights = abs(self._value(step.operands[side]))
        (summed,), batch = (each[side] for each in step.params["dimension_numbers"])
        (new,) = {*range(weights.ndim)} - {summed, *batch}
        weights = weights.transpose(summed, *batch, new)
        weights = weights.reshape(len(weights), -1, weights.shape[-1])
        old, _, size = weights.shape
        weights = weights / np.where((total := weights.sum(0)) == 0, 1, total)
        at, resized = np.arange(old), (np.arange(size) + 0.5) * (old / size) - 0.5
        middle = np.where(total == 0, resized, np.tensordot(at, weights, 1))
        width = max(1, old / size)  # of what a result of a resize reads
        if (abs(middle - resized) < (1 - _ROUNDING) * width).all():
            return resized
        apart = abs(at.reshape(-1, 1, 1) - middle) * weights
        is_one = np.allclose(middle, middle[0]) and (apart.sum(0) <= width / 2).all()
        return middle[0] if is_one and total.all() else None

    def _is_literal(self, operand: Operand) -> bool:
        if isinstance(operand, Constant):
            return not isinstance(operand.value, jax.core.Tracer)
        return operand in self._literals

    def _value(self, operand: Operand) -> np.ndarray:
        """The value of a literal, which the network's arrays do not change."""
        if operand not in self._known:
            steps = needed_for([operand], self._literal_steps)
            with jax.ensure_compile_time_eval():
                value = jax.jit(lambda: read(interpret(steps, {}), operand))()
            self._known[operand] = np.asarray(jax.device_get(value), np.float64)
        return self._known[operand]


def changing(labels: Sequence[tuple[Label, ...]]) -> Labels:
    """The labels that are not one number alone."""
    return tuple(tuple(label for label in kind if label.size > 1) for kind in labels)


def is_lost(label: Label) -> bool:
    return bool(np.isnan(label).all())


def cell(label: Label) -> float:
    """From one row to the next, in pixels."""
    numbers = np.unique(label[~np.isnan(label)])
    return float(np.diff(numbers).min()) if len(numbers) > 1 else 1.0


def distinct(labels: Sequence[Label]) -> int:
    """How many different elements labels of one shape tell apart, at most; 0 if any is lost."""
    if not labels or np.isnan(labels).any():
        return 0
    most = math.prod(len(np.unique(label)) for label in labels)
    if most < labels[0].size:  # of a flattened value, where counting pairs takes seconds
        return most
    return np.unique(np.reshape(labels, (len(labels), -1)), axis=1).shape[1]


def _lost(shape: Sequence[int]) -> Label:
    return np.broadcast_to(np.nan, tuple(shape))


def _lost_along(label: Label, axes: Collection[int], sizes: Sequence[int]) -> Label:
    """A label that is lost where it changes along one of these axes."""
    if all(label.shape[axis] == 1 for axis in axes):
        return label
    return _lost([sizes[axis] if n > 1 else 1 for axis, n in enumerate(label.shape)])


def _narrowed(label: Label) -> Label:
    """The label with length 1 along each axis where nothing changes; NaN if it has no elements."""
    if label.size == 0:
        return np.full((1,) * label.ndim, np.nan)
    for axis, size in enumerate(label.shape):
        first = label.take([0], axis)
        if size > 1 and (label == first).all():
            label = first
    return label


def _line(label: Label, axis: int) -> tuple[Label, Label] | None:
    """The first number along an axis, and the step to the next; None where steps differ.

    Of numbers that come several times each, as after upsampling, with the parts of a step.
    """
    size, lines = label.shape[axis], np.moveaxis(label, axis, -1)
    changes = np.flatnonzero(np.diff(lines.reshape(-1, size)[0]))
    times = int(changes[0]) + 1 if len(changes) else size
    if size % times or not np.array_equal(lines, lines[..., ::times].repeat(times, -1)):
        return None
    coarse = label.take(range(0, size, times), axis)
    steps = np.diff(coarse, axis=axis)
    if steps.shape[axis] == 0 or not np.allclose(steps, steps.take([0], axis)):
        return None
    step = steps.take([0], axis) / times
    return coarse.take([0], axis) - step * (times - 1) / 2, step


_ELEMENTWISE = POINTWISE | {
    *("stop_gradient", "real", "imag", "round", "floor", "ceil", "rem", "nextafter", "xor"),
    *("lgamma", "digamma", "sharding_constraint", "layout_constraint"),
    *("bessel_i0e", "bessel_i1e", "population_count", "shift_left", "shift_right_logical"),
}
_WRITES = {"dynamic_update_slice": 1, "scatter": 2}  # which operand is written over the first
_REDUCTIONS = [f"reduce_{name}" for name in ("sum", "max", "min", "prod", "and", "or", "xor")]
_CUMULATIVE = [f"cum{name}" for name in ("sum", "prod", "max", "min", "logsumexp")]
_MOVES: Mapping[str, Callable[..., Label | None]] = {
    **dict.fromkeys([*_REDUCTIONS, "argmax", "argmin", "squeeze"], Follower._reduce),
    **dict.fromkeys([f"reduce_window_{name}" for name in ("sum", "max", "min")], Follower._pool),
    **dict.fromkeys([*_CUMULATIVE, "sort"], Follower._along),
    **dict.fromkeys(["dynamic_slice", "dynamic_update_slice"], Follower._resized),
    **dict.fromkeys(["scatter", "scatter-add", "scatter-sub"], Follower._resized),
    **dict.fromkeys(["concatenate", "stack"], Follower._keep),
    "rev": Follower._mirror,
    "transpose": Follower._transpose,
    "broadcast_in_dim": Follower._broadcast,
    "reshape": Follower._reshape,
    "conv_general_dilated": Follower._convolution,
    "pad": Follower._pad,
    "slice": Follower._slice,
    "split": Follower._split,
    "gather": Follower._gather,
    "dot_general": Follower._product,
}
