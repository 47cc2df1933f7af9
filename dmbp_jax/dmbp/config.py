"""Settings of one DMBP run (paper Sec. 3.2 and 4): frozen, hashable, checked when made."""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dmbp_jax.checks import check_choice, check_count, check_number
from dmbp_jax.dmbp.objective import OBJECTIVES, Objective, check_objective
from dmbp_jax.engine.content import content
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.graph.linearisation import Linearisation


@dataclass(frozen=True)
class DMBP:
    """How the masks are learned.

    `steps`, `learning_rate`, `loss`, `evidence`, `init` and `optimizer` are the method. `pointwise`
    and `segments` are asked by smooth activations alone, `precision` and `dtype` are the
    arithmetic.

    Attributes:
      steps: number of optimiser steps; 0 keeps the initial masks.
      learning_rate: of the default optimiser, PyTorch's RMSProp, which is
        `optax.rmsprop(learning_rate, decay=0.99, eps=1e-8, eps_in_sqrt=False)`.
      loss: "all" is L = y⁻ − y⁺ + |ỹ| (Eq. 10); "positive-negative" is y⁻ − y⁺ and "positive" is
        −y⁺ (Table 1). The last two have no term that bounds y⁺. Or an `Objective` of your own.
      evidence: what y⁺ and y⁻ count. "all" is Eq. 14: pixels and biases. "input" is ∇ₓF±ᵀx alone
        (Eq. 11 taken at its word on a network with biases; ours): only what a map can show.
      pointwise: slope of an activation that is not piecewise linear. "secant" is (f(z) − f(0)) / z
        with intercept f(0), which is the gate of SiLU and GELU; "tangent" is f′(z) with intercept
        f(z) − f′(z) z; "segments" is the slope of a polygon through f, the paper's proposal
        (docs/activations.md). F is exact at x with all, and piecewise-linear ones are not asked.
      segments: how many the polygon has between −4 and 4, at most 256; an even number has a corner
        at 0.
      init: start of every θ, where σ = sigmoid(θ); 0 is σ = ½.
      optimizer: any `optax.GradientTransformation`, with a schedule in it too, instead of RMSProp.
        Two that were made alike are equal, as are two losses of your own, so that a new one in
        every call compiles once.
      precision: precision of convolutions and matrix products, as in
        `jax.default_matmul_precision`: None (the device's default, TF32 on recent GPUs),
        "highest", "float32", "tensorfloat32", "bfloat16", ...
      dtype: dtype of weights and activations in the passes of the optimiser, None keeps the
        network's own. Gates, F(x), maps, masks and optimiser state are not rounded to it; where it
        is more precise than x, they have it too.

    Raises:
      InputTypeError, InputError: a field has a wrong type or range.

    .. warning::
       optax's own RMSProp defaults (decay 0.9, eps inside the root) learn nothing here: mask
       gradients shrink like ½^depth at σ = ½ and vanish under that eps.

    Example:
      >>> DMBP(steps=50, precision="highest")  # what is not the default
      DMBP(steps=50, precision='highest')
    """

    steps: int = 200
    learning_rate: float = 0.01
    loss: str | Objective = "all"
    evidence: str = "all"
    pointwise: str = "secant"
    segments: int = 8
    init: float = 0.0
    optimizer: optax.GradientTransformation | None = None
    precision: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        check_count(self.steps, "steps", minimum=0)
        check_number(self.learning_rate, "learning_rate", low=0, above=True)
        check_number(self.init, "init")
        if isinstance(self.loss, Objective):
            check_objective(self.loss)
        elif isinstance(self.loss, str):
            check_choice(self.loss, "loss", tuple(OBJECTIVES))
        else:
            raise InputTypeError(
                f"loss: Expected a name or an Objective, got {type(self.loss).__name__} "
                f"{self.loss!r}."
            )
        check_choice(self.evidence, "evidence", ("all", "input"))
        Linearisation(self.pointwise, self.segments)
        if self.optimizer is not None and not (
            hasattr(self.optimizer, "init") and hasattr(self.optimizer, "update")
        ):
            raise InputTypeError(
                "optimizer: Expected an optax.GradientTransformation or None, "
                f"got {type(self.optimizer).__name__}."
            )
        if self.precision is not None:
            check_choice(self.precision, "precision", _PRECISIONS)
        if self.dtype is not None:
            _check_dtype(self.dtype)

    def __repr__(self) -> str:
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        defaults = {one.name: one.default for one in fields(self)}
        shown = [f"{name}={v!r}" for name, v in given.items() if v != defaults[name]]
        return f"{type(self).__name__}({', '.join(shown)})"

    @cached_property
    def _content(self) -> tuple[Any, ...]:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        if isinstance(self.loss, Objective):
            values["loss"] = content((self.loss.value, self.loss.one_sided))
        return (*(values | {"optimizer": content(self.optimizer)}).values(),)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    @classmethod
    def quick(cls, **options: Any) -> "DMBP":
        """Seven steps at five times the paper's rate: `DMBP(steps=7, learning_rate=0.05)` (ours).

        The first averages of RMSProp are small, so that the first steps are long: the first moves
        every θ by ten times the rate. What the masks reach depends on the distance travelled more
        than on the number of steps. `python -m benchmarks faithfulness` measures it against the
        paper's 200 steps.

        Example:
          >>> DMBP.quick()
          DMBP(steps=7, learning_rate=0.05)
        """
        defaults: dict[str, Any] = {"steps": 7, "learning_rate": 0.05}
        return cls(**(defaults | options))

    @classmethod
    def paper(cls, **options: Any) -> "DMBP":
        """The paper's optimisation: 200 steps of PyTorch's RMSProp at rate 0.01 (Sec. 4).

        Example:
          >>> DMBP.paper() == DMBP()
          True
        """
        return cls(**options)

    def objective(self) -> Objective:
        """The loss that the masks minimise."""
        return OBJECTIVES[self.loss] if isinstance(self.loss, str) else self.loss

    def transformation(self) -> optax.GradientTransformation:
        """The optimiser of θ: the one given, or RMSProp at the learning rate."""
        made = self.optimizer or optax.rmsprop(
            self.learning_rate, decay=0.99, eps=1e-8, eps_in_sqrt=False
        )

        def update(*arguments: Any) -> Any:
            with jax.numpy_dtype_promotion("standard"):  # schedules divide integers
                return made.update(*arguments)

        return optax.GradientTransformation(made.init, update)


_PRECISIONS = ("default", "high", "highest", "bfloat16", "tensorfloat32", "float32")


def _check_dtype(dtype: Any) -> None:
    try:
        is_float = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        is_float = False
    if not is_float or not isinstance(dtype, str):
        raise InputError(
            'dtype: Expected None or the name of a floating-point dtype such as "bfloat16", '
            f"got {dtype!r}."
        )
