"""Channels last on a CPU: a channels-first network is computed with its axes in another order.

Inside a loop XLA has no fast kernel there for another layout of a convolution, and transpositions
around each one take as long as all the rest. Equations are written anew for the values as they are
stored (`orders`): those of a program, and those of the network as it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.graph.flattening import Flat
from dmbp_jax.graph.jaxprs import (
    altered,
    body,
    called_jaxpr,
    evaluate,
    inner_jaxprs,
    transposition,
    with_body,
)
from dmbp_jax.graph.operations import CALLS, POINTWISE
from dmbp_jax.graph.orders import Order, arrange, as_it_is, between, is_plain, plain
from dmbp_jax.graph.pieces import FAMILIES, Equation, Maximum, Piece, Relu, find_piece
from dmbp_jax.graph.program import Site
from dmbp_jax.graph.steps import Operand, Step

Bind = Callable[[Any, Sequence[Any]], list[Any]]
_OWN_DERIVATIVE = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")


def pays() -> bool:
    """Whether axes are turned: on a CPU. On a GPU XLA chooses the layouts."""
    return jax.default_backend() == "cpu"


def turn(flat: Flat) -> Flat:
    """The same program, each value stored as its convolutions want it; the logits as they were."""
    return _Turner(flat).turned()


class _Turner:
    """Walks the steps of a program once."""

    def __init__(self, flat: Flat) -> None:
        self._flat = flat
        self._orders: dict[Operand, Order] = {}  # of values that are not stored as the network's
        self._moved: dict[tuple[Operand, Order], int] = {}
        self._numbers: dict[Operand, Step] = {}  # what broadcasts a number
        self._steps: list[Step] = []
        made = (name for step in flat.steps for name in step.results)
        self._last = max([*made, *flat.inputs, flat.image])

    def turned(self) -> Flat:
        places = [self._add(step) for step in self._flat.steps]
        places.append(len(self._steps))
        regions = []
        for region in self._flat.regions:
            start = places[region.start]
            is_empty = region.start == region.stop
            stop = start if is_empty else places[region.stop - 1] + 1
            regions.append(region._replace(start=start, stop=stop))
        logits = self._flat.logits
        if logits in self._orders:
            step = next(step for step in self._steps if logits in step.results)
            variable = step.equation.outvars[step.results.index(logits)]
            logits = self._move(step, logits, variable, True, plain(variable.aval.ndim))
        orders = {name: order for name, order in self._orders.items() if isinstance(name, int)}
        return self._flat._replace(steps=self._steps, regions=regions, logits=logits, orders=orders)

    def _add(self, step: Step) -> int:
        """Append a step, after the transpositions that it needs; its position."""
        arranged = as_it_is(step.equation)
        if step.piece is None or type(step.piece) in FAMILIES:  # no other says what it would read
            have = map(self._orders.get, step.operands, arranged.reads)
            arranged = arrange(step.equation, list(have))
        reads = zip(step.operands, step.equation.invars, step.depends, arranged.reads, strict=True)
        operands = tuple(self._move(step, *each) for each in reads)
        if not arranged.is_plain:
            step = replace(step, equation=altered(step.equation, *arranged), operands=operands)
            step = replace(step, piece=_piece_of(step))
            orders = zip(step.results, arranged.makes, strict=True)
            self._orders.update((name, order) for name, order in orders if not is_plain(order))
        elif operands != step.operands:
            step = replace(step, operands=operands)
        if step.kind == "constant" and step.name == "broadcast_in_dim" and arranged.reads == [()]:
            self._numbers[step.results[0]] = step
        self._steps.append(step)
        return len(self._steps) - 1

    def _move(
        self, reader: Step, operand: Operand, variable: Any, depends: bool, order: Order
    ) -> Operand:
        """The name of a value in an order."""
        have = self._orders.get(operand, plain(len(order)))
        if have != order and (operand, order) not in self._moved:
            self._last += 1
            self._moved[operand, order] = self._last
            if operand in self._numbers:
                made_by = self._numbers[operand]
                params = {**made_by.params, "shape": tuple(made_by.shape[axis] for axis in order)}
                equation = altered(made_by.equation, params, [()], [order])
                step = replace(made_by, equation=equation, results=(self._last,))
            else:
                step = Step(
                    kind="affine" if depends else "constant",
                    equation=transposition(reader.equation, variable, have, order),
                    operands=(operand,),
                    results=(self._last,),
                    scope=reader.scope,
                    depends=(depends,),
                )
            self._steps.append(step)
        return operand if have == order else self._moved[operand, order]


def _piece_of(step: Step) -> Piece | None:
    """The piece of a step that was written anew."""
    if step.piece is None or isinstance(step.piece, Relu | Maximum):
        return step.piece
    none = (False,) * len(step.depends)
    return find_piece(Equation(step.name, False, step.params, step.depends, none), FAMILIES)


class _Stored(NamedTuple):
    """A value of the network that is stored in another order."""

    array: Any
    order: Order


def evaluate_turned(
    jaxpr: Any,
    constants: Sequence[Any],
    arguments: Sequence[Any],
    bind: Bind,
) -> list[Any]:
    """As `jaxprs.evaluate`; calls are looked into where axes are turned in them."""

    def inside(jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
        return evaluate_turned(jaxpr, constants, arguments, bind)

    def at(equation: Any, values: Sequence[Any]) -> list[Any]:
        name, arranged = equation.primitive.name, as_it_is(equation)
        orders = [
            value.order if isinstance(value, _Stored) else order
            for value, order in zip(values, arranged.reads, strict=True)
        ]
        is_turned = not all(map(is_plain, orders))
        if name in _OWN_DERIVATIVE and is_turned and _is_elementwise(equation):
            return _of_any_order(equation, values, next(o for o in orders if not is_plain(o)), bind)
        if name in CALLS and name not in _OWN_DERIVATIVE and (is_turned or _asks(equation)):
            inner, constants = body(called_jaxpr(equation))
            return evaluate(inner, constants, values, at)
        if name == "scan" and _asks(equation):
            equation = with_body(equation, inside)
        elif name not in CALLS:
            arranged = arrange(equation, orders)
        if not arranged.is_plain:
            equation = equation.replace(params=arranged.params)
        results = bind(equation, list(map(_in_order, values, arranged.reads)))
        return list(map(_stored, results, arranged.makes))

    return [_in_order(value, None) for value in evaluate(jaxpr, constants, arguments, at)]


def _asks(equation: Any) -> bool:
    """Whether a convolution in a call or a loop wants another order than the network's."""
    equations = (one for inner in inner_jaxprs(equation) for one in body(inner)[0].eqns)
    return any(
        _asks(one)
        or (one.primitive.name == "conv_general_dilated" and not arrange(one, ()).is_plain)
        for one in equations
    )


def _is_elementwise(equation: Any) -> bool:
    """Whether a call computes every element from the same elements of its operands."""
    shape = equation.outvars[0].aval.shape

    def fits(one: Any) -> bool:
        shapes = {variable.aval.shape for variable in (*one.invars, *one.outvars)}
        if one.primitive.name in CALLS:
            inner, constants = body(called_jaxpr(one))
            return (
                shapes <= {(), shape}
                and not any(map(np.ndim, constants))
                and all(map(fits, inner.eqns))
            )
        if one.primitive.name == "broadcast_in_dim":
            return one.invars[0].aval.shape == () and shapes <= {(), shape}
        return shapes == {()} or (one.primitive.name in POINTWISE and shapes <= {(), shape})

    return fits(equation)


def _of_any_order(equation: Any, values: Sequence[Any], order: Order, bind: Bind) -> list[_Stored]:
    """An elementwise call of values in one order: it keeps its shapes, which mean nothing to it."""
    shape = equation.outvars[0].aval.shape
    arrays = [
        jnp.reshape(_in_order(value, order), shape) if variable.aval.shape else value
        for value, variable in zip(values, equation.invars, strict=True)
    ]
    stored = tuple(shape[axis] for axis in order)
    return [
        _Stored(jnp.reshape(result, stored), order) if jnp.ndim(result) else result
        for result in bind(equation, arrays)
    ]


def _in_order(value: Any, order: Order | None) -> Any:
    """The array of a value in an order; None is the network's."""
    have = value.order if isinstance(value, _Stored) else None
    if have == order:
        return value.array if have else value
    array, have = value if have else (value, plain(jnp.ndim(value)))
    permutation = between(have, order or plain(len(have)))
    return array if permutation is None else jnp.transpose(array, permutation)


def _stored(array: Any, order: Order) -> Any:
    return array if is_plain(order) else _Stored(array, order)


def as_network(site: Site) -> Site:
    """A site with the axes of the network's value."""
    stored = [site.order.index(axis) for axis in range(len(site.order))]
    shape = tuple(site.shape[axis] for axis in stored)
    labels = tuple(tuple(one.transpose(stored) for one in kind) for kind in site.labels)
    return replace(site, shape=shape, labels=labels, order=plain(len(stored)))


def to_network(stored: Any, order: Order) -> jax.Array:
    """An array with leading axes of its own before a value that is stored in an order."""
    return _moved(stored, between(order, plain(len(order))))


def from_network(array: Any, order: Order) -> jax.Array:
    """The other way."""
    return _moved(array, between(plain(len(order)), order))


def _moved(array: Any, permutation: Order | None) -> Any:
    if permutation is None:
        return array
    lead = array.ndim - len(permutation)
    return jnp.transpose(array, (*range(lead), *(lead + axis for axis in permutation)))
