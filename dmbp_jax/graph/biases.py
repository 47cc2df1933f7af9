"""The biases of a program (paper Eq. 12 to 14): every place where a constant is added.

Elementwise operations with constants are joined into chains, so that a convolution's bias and the
BatchNorm after it are one bias.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from dmbp_jax.graph.operations import ELEMENTWISE, MAY_ADD_CONSTANT, SELECTORS
from dmbp_jax.graph.steps import Constant, Step, count_reads, is_zero

Bias = tuple[Step, ...]  # a chain r ↦ a·r + b (conv + bias, BatchNorm), or a piece


def find_biases(steps: Sequence[Step]) -> list[Bias]:
    """The chains that add something, and the pieces with an intercept, in order of evaluation."""
    found: list[Bias] = [tuple(chain) for chain in _chains(steps) if any(map(adds_constant, chain))]
    found += [(step,) for step in steps if step.piece is not None and step.piece.has_intercept]
    order = {step: position for position, step in enumerate(steps)}
    return sorted(found, key=lambda bias: order[bias[-1]])


def _chains(steps: Sequence[Step]) -> list[list[Step]]:
    reads = count_reads(steps)
    open_chains: dict[int, list[Step]] = {}  # result of the last step -> chain
    chains: list[list[Step]] = []
    for step in steps:
        if step.kind != "affine":
            continue
        if step.name in ELEMENTWISE and sum(step.depends) == 1:
            (source,) = step.dependent
            chain = open_chains.pop(source, None) if reads[source] == 1 else None
            if chain is None:
                chain = []
                chains.append(chain)
            chain.append(step)
            open_chains[step.results[0]] = chain
        elif step.name in MAY_ADD_CONSTANT and not all(step.depends):
            chains.append([step])
    return chains


def adds_constant(step: Step) -> bool:
    """Whether an affine step adds something that is not known to be zero."""
    constants = [step.operands[position] for position in _constant_operands(step)]
    return _fills(step) or not all(isinstance(c, Constant) and is_zero(c.value) for c in constants)


def without_constants(step: Step, operands: Sequence[Any]) -> tuple[Step, list[Any]]:
    """An affine step and its operands with everything that it adds replaced by 0."""
    values = list(operands)
    for position in _constant_operands(step):
        values[position] = jnp.zeros_like(values[position])
    if _fills(step):
        equation = step.equation.replace(params={**step.params, "fill_value": 0})
        step = replace(step, equation=equation)
    return step, values


def _fills(step: Step) -> bool:
    """Whether a gather puts a number where it reads nothing."""
    # None is not a number: only what nobody reads may be filled with it.
    return step.name == "gather" and step.params["fill_value"] not in (None, 0)


def _constant_operands(step: Step) -> list[int]:
    """Positions of the operands of an affine step that are additive constants."""
    if step.name not in MAY_ADD_CONSTANT or all(step.depends):
        return []
    return [
        position
        for position in range(len(step.operands))
        if not step.depends[position] and position not in SELECTORS.get(step.name, ())
    ]
