"""The table of operations: which primitive is affine in which operands, and what is refused.

Every other operation on the path from x is a piece (`pieces/`) or an error that names it.
"""

from typing import Any

import jax.numpy as jnp

from dmbp_jax.errors import ControlFlowError, NonAffineError, UnsupportedNetworkError

# Affine in all operands that depend on x at the same time.
ANY_OPERANDS = (
    *("add", "add_any", "sub", "neg", "real", "split", "copy", "copy_p", "reduce_precision"),
    *("reshape", "transpose", "broadcast_in_dim", "squeeze", "expand_dims", "rev", "slice"),
    *("concatenate", "stack", "unstack", "tile", "pad", "convert_element_type"),
    *("reduce_sum", "cumsum", "reduce_window_sum", "sharding_constraint", "layout_constraint"),
    *("optimization_barrier", "pvary", "pcast", "device_put"),
)
# Affine in these operands, the others do not depend on x.
JOINTLY_LINEAR = {
    "gather": (0,),
    "dynamic_slice": (0,),
    "dynamic_update_slice": (0, 1),
    "scatter": (0, 2),
    "scatter-add": (0, 2),
    "scatter-sub": (0, 2),
    "div": (0,),
}
BILINEAR = {"mul", "dot_general", "conv_general_dilated"}  # at most one operand depends on x
CONTROL_FLOW = {"scan", "while", "cond", "shard_map", "xla_pmap", "pmap"}
CALLS = {
    *("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "remat"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
}
KEEPS_ZERO = {"broadcast_in_dim", "convert_element_type", "reshape", "copy", "pvary", "pcast"}
ELEMENTWISE = {"add", "add_any", "sub", "mul", "div", "neg", "convert_element_type"}
MAY_ADD_CONSTANT = {
    *("add", "add_any", "sub", "pad", "concatenate", "stack", "select_n"),
    *("dynamic_update_slice", "scatter", "scatter-add", "scatter-sub"),
}
SELECTORS = {  # operands that say where, not what: indices and conditions
    "select_n": (0,),
    "dynamic_update_slice": tuple(range(2, 16)),
    "scatter": (1,),
    "scatter-add": (1,),
    "scatter-sub": (1,),
}
_NORMALISATION = "use normalisation layers in inference mode, with running statistics"
_COMPARISON = "write the ReLU as jax.nn.relu or jnp.maximum(x, 0); leaky ReLU is not supported"
HINTS = {
    "exp": "return logits, without softmax",
    "logistic": "return logits, without sigmoid (SiLU and Swish are not supported)",
    "tanh": "tanh and GELU are not supported",
    "erf": "GELU is not supported",
    "min": "ReLU6 is not a ReLU",
    "rsqrt": _NORMALISATION,
    "sqrt": _NORMALISATION,
    "square": _NORMALISATION,
    "mul": "two values that both depend on x are multiplied (attention, gating, "
    "or a normalisation layer in training mode)",
    "gt": _COMPARISON,
    "ge": _COMPARISON,
    "max": "only max(x, 0) is a ReLU; a softmax also starts with a max: return logits",
}


def is_affine(equation: Any, depends: tuple[bool, ...]) -> bool:
    """Whether a jaxpr equation is affine in the operands that depend on x."""
    name = equation.primitive.name
    if not all(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in equation.outvars):
        return False
    if name in ANY_OPERANDS:
        return True
    if name in BILINEAR:
        return sum(depends) == 1
    if name == "select_n":
        return not depends[0]
    allowed = JOINTLY_LINEAR.get(name, ())
    return all(position in allowed for position, value in enumerate(depends) if value)


def refusal(name: str, scope: str) -> UnsupportedNetworkError:
    """The error that says which operation is not supported, and where it is."""
    place = f"at {scope!r}" if scope else "at the top level of the network"
    if name in CONTROL_FLOW:
        return ControlFlowError(
            f"Expected a network without control flow between x and the logits, got {name!r} "
            f"{place}. A ReLU inside it would need one gate per iteration; "
            "unroll the loop (for scanned layers: scan=False or a Python loop)."
        )
    hint = f" ({HINTS[name]})" if name in HINTS else ""
    return NonAffineError(
        "Expected only affine operations, ReLUs and max-pools between x and the logits, "
        f"got {name!r} {place}{hint}."
    )
