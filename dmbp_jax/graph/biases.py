"""The biases of a program (paper Eq. 12 to 14): every place where a constant is added.

Elementwise operations with constants are joined into chains, so that a convolution's bias and the
BatchNorm after it are one bias.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from dmbp_jax.graph.jaxprs import bind
from dmbp_jax.graph.operations import ELEMENTWISE, MAY_ADD_CONSTANT, SELECTORS
from dmbp_jax.graph.program import BiasGroup, Constant, Step, count_reads
from dmbp_jax.graph.zeros import is_zero


def group_biases(steps: Sequence[Step]) -> list[BiasGroup]:
    """The chains that add something, and the pieces with an intercept, in order of evaluation."""
    groups = [
        BiasGroup(tuple(chain))
        for chain in _chains(steps)
        if any(adds_constant(steps[position]) for position in chain)
    ]
    groups += [
        BiasGroup((position,))
        for position, step in enumerate(steps)
        if step.piece is not None and step.piece.has_intercept
    ]
    return sorted(groups, key=lambda group: group.steps[-1])


def _chains(steps: Sequence[Step]) -> list[list[int]]:
    reads = count_reads(steps)
    open_chains: dict[int, list[int]] = {}  # result of the last step -> chain
    chains: list[list[int]] = []
    for position, step in enumerate(steps):
        if step.kind != "affine":
            continue
        if step.name in ELEMENTWISE and sum(step.depends) == 1:
            source = step.operands[step.depends.index(True)]
            assert isinstance(source, int)
            chain = open_chains.pop(source, None) if reads.get(source) == 1 else None
            if chain is None:
                chain = []
                chains.append(chain)
            chain.append(position)
            open_chains[step.results[0]] = chain
        elif step.name in MAY_ADD_CONSTANT and not all(step.depends):
            chains.append([position])
    return chains


def adds_constant(step: Step) -> bool:
    """Whether an affine step adds something that is not known to be zero."""
    return _fills(step) or any(
        not (isinstance(operand, Constant) and is_zero(operand.value))
        for operand in (step.operands[position] for position in constant_operands(step))
    )


def bind_linear(step: Step, operands: Sequence[Any]) -> Any:
    """The results of an affine step with everything that it adds replaced by 0."""
    values, equation = list(operands), step.equation
    for position in constant_operands(step):
        values[position] = jnp.zeros_like(values[position])
    if _fills(step):
        equation = equation.replace(params={**step.params, "fill_value": 0})
    return bind(equation, values)


def _fills(step: Step) -> bool:
    """Whether a gather puts a number where it reads nothing."""
    # None is not a number: only what nobody reads may be filled with it.
    return step.name == "gather" and step.params["fill_value"] not in (None, 0)


def constant_operands(step: Step) -> list[int]:
    """Positions of the operands of an affine step that are additive constants."""
    if step.name not in MAY_ADD_CONSTANT or all(step.depends):
        return []
    return [
        position
        for position in range(len(step.operands))
        if not step.depends[position] and position not in SELECTORS.get(step.name, ())
    ]
