"""The table of operations: which primitive is affine, which is elementwise, what is refused.

Every other operation on the path from x is a piece (`pieces/`) or an error that names it.
"""

from typing import Any

import jax.numpy as jnp

from dmbp_jax.errors import ControlFlowError, NonAffineError, UnsupportedNetworkError

# Return each of their operands as it is: of values that depend on x they are no operation.
IDENTITIES = {"optimization_barrier", "device_put", "name"}  # the last is `checkpoint_name`
_RESHAPES = {"reshape", "transpose", "broadcast_in_dim", "squeeze"}
# Affine in all operands that depend on x at the same time.
ANY_OPERANDS = {
    *_RESHAPES,
    *("add", "add_any", "sub", "neg", "real", "split", "copy", "reduce_precision"),
    *("rev", "slice", "concatenate", "stack", "unstack", "tile", "pad", "convert_element_type"),
    *("reduce_sum", "cumsum", "reduce_window_sum", "sharding_constraint", "layout_constraint"),
}
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
PRODUCTS = BILINEAR | {"div"}  # of two values that depend on x: one of them may be a gate
CONTROL_FLOW = {  # and what to do instead; a scan, and a fori_loop of fixed bounds, is written out
    "while": "how often it runs is not known before it runs; use lax.scan, lax.fori_loop with "
    "bounds that are Python integers, or a Python loop",
    "cond": "which branch it takes is not known before it runs; choose the branch in Python",
    "shard_map": "call the network as it is on one device",
}
CALLS = {"jit", "closed_call", "remat2", "custom_jvp_call", "custom_vjp_call"}
KEEPS_ZERO = {
    *("broadcast_in_dim", "convert_element_type", "reshape", "transpose", "copy"),
    *IDENTITIES,
}
ELEMENTWISE = {"add", "add_any", "sub", "mul", "div", "neg", "convert_element_type"}
_DIGITS = jnp.finfo(jnp.bfloat16).nmant  # that a cast leaves, at least
MAY_ADD_CONSTANT = {
    *("add", "add_any", "sub", "pad", "concatenate", "stack", "select_n"),
    *("dynamic_update_slice", "scatter", "scatter-add", "scatter-sub", "gather"),
}
# Elementwise and not affine: they may be part of a pointwise function of one value (`pointwise`).
LOCALLY_CONSTANT = {"sign", "gt", "ge", "lt", "le", "eq", "ne", "not", "and", "or", "is_finite"}
PIECEWISE_LINEAR = {"max", "min", "abs", "clamp", "select_n"}
SMOOTH = {
    *("exp", "exp2", "expm1", "log", "log1p", "logistic", "tanh", "erf", "erfc", "erf_inv"),
    *("sqrt", "rsqrt", "cbrt", "square", "integer_pow", "pow", "atan2"),
    *("sin", "cos", "tan", "sinh", "cosh", "asin", "acos", "atan", "asinh", "acosh", "atanh"),
}
AFFINE_POINTWISE = ELEMENTWISE | {"copy", "reduce_precision"}
POINTWISE = AFFINE_POINTWISE | LOCALLY_CONSTANT | PIECEWISE_LINEAR | SMOOTH
# Affine and without a sum over positions or features: what comes out is what went in, moved.
MOVES = AFFINE_POINTWISE | _RESHAPES | {"rev", "slice"}
# Affine in one value, and bring it to a larger shape without adding anything.
WIDENS = AFFINE_POINTWISE - {"add", "add_any", "sub"} | _RESHAPES
SELECTORS = {  # operands that say where, not what: indices and conditions
    "select_n": (0,),
    "gather": (1,),
    "dynamic_update_slice": tuple(range(2, 16)),
    "scatter": (1,),
    "scatter-add": (1,),
    "scatter-sub": (1,),
}
_NORMALISATION = "use normalisation layers in inference mode, with running statistics"
_PRODUCT = (
    "two values that both depend on x are multiplied (attention, gating, "
    "or a normalisation layer that computes statistics)"
)
_COMPARISON = "a comparison with x decides about more than one element"
_ROUNDED = "is rounded, to an integer or to fewer digits than those of bfloat16"
_ORDER = (
    "write pairs with maximum and minimum, or teach it as a piece whose choice is the order, with "
    "dmbp_jax.register_piece"
)
HINTS = {
    "stop_gradient": "as in a softmax: return logits, without softmax; between two layers a "
    "softmax can only be a gate, whose weights multiply another value, as in attention",
    "div": f"return logits, without softmax; {_NORMALISATION}",
    "mul": _PRODUCT,
    "dot_general": _PRODUCT,
    "sort": _ORDER,
    "convert_element_type": f"a value that depends on x {_ROUNDED}",
    "reduce_precision": f"a value that depends on x {_ROUNDED}",
    "gt": _COMPARISON,
    "ge": _COMPARISON,
    "lt": _COMPARISON,
    "le": _COMPARISON,
}


def is_affine(equation: Any, depends: tuple[bool, ...]) -> bool:
    """Whether a jaxpr equation is affine in the operands that depend on x."""
    name = equation.primitive.name
    read = [variable for variable, value in zip(equation.invars, depends, strict=True) if value]
    if not all(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in (*equation.outvars, *read)):
        return False
    if name in ANY_OPERANDS:
        return not rounds(equation)
    if name in BILINEAR:
        return sum(depends) == 1
    if name == "select_n":
        return not depends[0]
    allowed = JOINTLY_LINEAR.get(name, ())
    return all(position in allowed for position, value in enumerate(depends) if value)


def rounds(equation: Any) -> bool:
    """Whether a cast leaves an integer, or fewer digits than bfloat16 has: it is a staircase."""
    if equation.primitive.name == "reduce_precision":
        return equation.params["mantissa_bits"] < _DIGITS
    before, after = (one.aval.dtype for one in (equation.invars[0], equation.outvars[0]))
    is_cast = equation.primitive.name == "convert_element_type"
    if not is_cast or not jnp.issubdtype(before, jnp.floating):
        return False
    return not jnp.issubdtype(after, jnp.floating) or jnp.finfo(after).nmant < _DIGITS


def refusal(name: str, scope: str) -> UnsupportedNetworkError:
    """The error that says which operation is not supported, and where it is."""
    if name in CONTROL_FLOW:
        return ControlFlowError(
            "Expected no control flow but loops of a known length between x and the logits, "
            f"got {name!r} {place(scope)}: {CONTROL_FLOW[name]}."
        )
    hint = f" ({HINTS[name]})" if name in HINTS else ""
    return NonAffineError(
        "Expected only affine operations, activations and pools between x and the logits, "
        f"got {name!r} {place(scope)}{hint}."
    )


def refusal_of_product(name: str, scope: str, both: bool) -> UnsupportedNetworkError:
    """The error of a product in which it is not clear which factor is the gate."""
    who = "both factors" if both else "neither factor"
    return NonAffineError(
        "Expected one factor of every product of two values that depend on x to be a gate, "
        f"got {name!r} {place(scope)}, where {who} came through a nonlinear function of x "
        "since their last common ancestor."
    )


def refusal_at_output(name: str, scope: str) -> UnsupportedNetworkError:
    """The error of a network whose last operation turns its logits into something else."""
    return NonAffineError(
        f"Expected a network that returns its logits, got {name!r} of them {place(scope)} "
        "(return logits, without softmax, sigmoid or another function of them)."
    )


def refusal_of_padding(name: str, scope: str) -> UnsupportedNetworkError:
    """The error of a pool whose value is infinite, whatever x is."""
    return NonAffineError(
        f"Expected pools with a value in every window, got {name!r} {place(scope)} with windows "
        "of padding alone, whose maximum is −∞."
    )


def place(scope: str) -> str:
    """Name scopes, as the end of a sentence."""
    return f"at {scope!r}" if scope else "at the top level of the network"
