"""A network with rules: evaluate its program with any behaviour at its pieces and biases.

`Graph.freeze` fixes all that x decides: the affine network of Eq. 4, with what is asked of it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from dmbp_jax.graph.biases import Bias, adds_constant, without_constants
from dmbp_jax.graph.convolution import adjoint_kernel, evaluate_affine, reads_adjoint
from dmbp_jax.graph.linearisation import Linearisation
from dmbp_jax.graph.pieces import Choice, Piece
from dmbp_jax.graph.program import Program
from dmbp_jax.graph.rules import Rules
from dmbp_jax.graph.steps import Operand, Rule, Step, interpret, needed_for, read


class Graph:
    """A network at one image, with its arrays; lives inside one JAX trace.

    Values that depend on the parameters alone are computed once here, so that they stay unbatched
    when `run` is vmapped over images.
    """

    affine: Rule  # evaluates affine steps

    def __init__(
        self,
        program: Program,
        inputs: Sequence[Any],
        linearisation: Linearisation = Linearisation(),  # noqa: B008 (frozen)
    ):
        self.program, self.affine = program, evaluate_affine
        self.masked, self.pooled, self.biases = program.masked, program.pooled, program.biases
        constants = [step for step in program.steps if step.kind == "constant"]
        given = dict(zip(program.inputs, inputs, strict=True))
        self._constants = interpret(constants, given, evaluate_affine)
        self._pieces: dict[int, Piece] = {  # a function or a factor gets the parameters it reads
            step.results[0]: step.piece.bind(self._constants, linearisation)
            if hasattr(step.piece, "bind")
            else step.piece
            for step in program.steps
            if step.piece is not None
        }
        self._adjoints = {
            step.results[0]: adjoint_kernel(self._constants[step.operands[1]], step.params)
            for step in program.steps
            if reads_adjoint(step) and step.operands[1] in self._constants  # and is not frozen
        }

    def with_affine(self, rule: Rule) -> "Graph":
        """The same network with another rule for affine steps."""
        other = copy(self)
        other.affine = rule
        return other

    def without_biases(self) -> "Graph":
        """The linear part of the network: every additive constant and every intercept is 0.

        With choices recorded on the whole network, `run(x)` is then ∇ₓFᵀx, one forward pass.
        """

        def rule(step: Step, operands: list[Any]) -> Sequence[Any]:
            if adds_constant(step):
                step, operands = without_constants(step, operands)
            return self.affine(step, operands)

        linear = self.with_affine(rule)
        linear._pieces = {  # pyrefly: ignore[bad-assignment]
            result: LinearPart(piece) if piece.has_intercept else piece
            for result, piece in self._pieces.items()
        }
        return linear

    def freeze(self, x: jax.Array) -> "FrozenNetwork":
        """The network frozen at one image `x` (1, H, W, C)."""
        choices: list[Choice] = []

        def choosing(index: int, piece: Piece, *z: jax.Array) -> jax.Array:
            choices.append(piece.choose(*z))
            return piece.apply(choices[index], *z)

        before = self.before_pieces(x)
        logits = self.run_from(before, Rules(choosing))[0]
        fixed = Fixed(tuple(choices), before, logits, jnp.zeros_like(logits))
        closed = self.run_closed(jnp.zeros_like(x), FrozenNetwork(self, fixed).rules())[0]
        return FrozenNetwork(self, fixed._replace(output_bias=closed))

    def run(self, x: jax.Array, rules: Rules = Rules()) -> jax.Array:  # noqa: B008 (frozen)
        """Logits (1, classes) of one image (1, H, W, C) under `rules`. Differentiable."""
        return self._logits({self.program.image: x}, rules)

    def run_closed(self, x: jax.Array, rules: Rules) -> jax.Array:
        """Logits (1, classes) with every masked piece returning 0, whatever `rules` say of it.

        Steps that only feed masked pieces are left out: what they compute would be thrown away.
        """
        closed = {
            step.results[0]: jnp.zeros(step.shape, step.dtype)
            for step in self.program.steps
            if step.piece is not None and step.piece.masked
        }
        return self._logits({self.program.image: x, **closed}, rules)

    def before_pieces(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """What no rule can change: the values before the first piece that later steps read.

        `run(x, rules) == run_from(before_pieces(x), rules)`; a loop over rules calls this once.
        """
        boundary = self.program.boundary
        values = self._values(boundary, {self.program.image: x}, Rules())
        return tuple(values[name] for name in boundary)

    def run_from(self, boundary: tuple[jax.Array, ...], rules: Rules) -> jax.Array:
        """Logits (1, classes) from the values of `before_pieces`; no rule is called before."""
        return self._logits(dict(zip(self.program.boundary, boundary, strict=True)), rules)

    def _logits(self, known: Mapping[int, Any], rules: Rules) -> jax.Array:
        return read(self._values([self.program.logits], known, rules), self.program.logits)

    def _values(
        self, wanted: Iterable[Operand], known: Mapping[int, Any], rules: Rules
    ) -> dict[int, Any]:
        """Values by name: those that are known, and those that are wanted with all they need."""
        values = {**self._constants, **known}
        steps = needed_for(wanted, self.program.steps, values)

        def rule(step: Step, operands: list[Any]) -> Sequence[Any]:
            """The results of a step; then what the rules make of its bias, then of the masked."""
            name = step.results[0]
            if step.piece is None:
                adjoint = [self._adjoints[name]] if name in self._adjoints else []
                results = self.affine(step, operands + adjoint)
            else:
                results = [self._at_piece(step, operands, rules)]
            if rules.bias is not None and name in self.program.bias_groups:
                index, bias = self.program.bias_groups[name]
                results = [rules.bias(index, results[0], self._at_zero(bias, values, rules))]
            if rules.after is not None and step.piece is not None and step.piece.masked:
                results = [rules.after(step.index, results[0])]
            return results

        return interpret(steps, values, rule)

    def _at_piece(self, step: Step, operands: Sequence[Any], rules: Rules) -> jax.Array:
        z = [one for one, depends in zip(operands, step.depends, strict=True) if depends]
        return rules.piece(step.index, self._pieces[step.results[0]], *z)

    def _at_zero(self, bias: Bias, values: Mapping[int, Any], rules: Rules) -> jax.Array:
        """The additive constant of a bias: what its steps make of zero."""
        first, last = bias[0], bias[-1]
        zeros = {name: jnp.zeros_like(values[name]) for name in first.dependent}
        local = {**values, **zeros}
        if last.piece is not None:
            return self._at_piece(last, [read(local, one) for one in last.operands], rules)
        return interpret(bias, local)[last.results[0]]


@dataclass(frozen=True)
class LinearPart:
    """A piece without its intercept, slope(choice) ⊙ z, with the choices of the whole piece."""

    piece: Piece
    has_intercept: ClassVar[bool] = False

    def apply(self, choice: Choice, *z: jax.Array) -> jax.Array:
        """The value for a fixed choice less its intercept."""
        return self.piece.apply(choice, *z) - self.piece.apply(choice, *map(jnp.zeros_like, z))


class Fixed(NamedTuple):
    """What one ordinary forward pass at x fixes: the arrays of a `FrozenNetwork`."""

    choices: tuple[Choice, ...]  # of every piece; of a ReLU H_l = 1[z_l > 0], of a pool its winners
    before_pieces: tuple[jax.Array, ...]  # the first layer's pre-activation
    logits: jax.Array  # F(x), (classes,)
    output_bias: jax.Array  # F_0, (classes,)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class FrozenNetwork:
    """A network with all fixed that x decides, gates, winners, factors: it is affine (Eq. 4).

    F_0 is the constant of the closed network: every activation 0, winners fixed, at x = 0. At x
    itself a path that bypasses every activation would count as a constant; Eq. 11 counts it in y⁺
    and y⁻.

    Activations are numbered in order of evaluation, as masks are.
    """

    graph: Graph = field(metadata={"static": True})
    fixed: Fixed

    def rules(
        self,
        activation: Callable[..., jax.Array] | None = None,
        bias: Callable[[int, jax.Array, jax.Array], jax.Array] | None = None,
        after: Callable[[int, jax.Array], jax.Array] | None = None,
    ) -> Rules:
        """Rules that apply every piece with its choice.

        Args:
          activation: `(number, piece, choice, *z) -> value` at an activation instead.
          bias: as in `Rules`.
          after: `(number, value) -> value` at an activation.
        """
        numbers = {site.index: number for number, site in enumerate(self.graph.masked)}

        def piece(index: int, piece: Piece, *z: jax.Array) -> jax.Array:
            choice = self.fixed.choices[index]
            if activation is None or index not in numbers:
                return piece.apply(choice, *z)
            return activation(numbers[index], piece, choice, *z)

        numbered = None if after is None else lambda index, value: after(numbers[index], value)
        return Rules(piece, bias, numbered)

    def logits(self, activation: Callable[..., jax.Array] | None = None) -> jax.Array:
        """Logits (classes,) at x with another rule at activations, from `before_pieces`."""
        return self.graph.run_from(self.fixed.before_pieces, self.rules(activation))[0]

    def without_biases(self, x: jax.Array) -> "FrozenNetwork":
        """The linear part: its logits are ∇ₓFᵀx, what the pixels at x carry (Eq. 11).

        They are F(x) − F(0) with every choice fixed at x, in one pass.
        """
        linear = self.graph.without_biases()
        before = linear.before_pieces(x)
        logits = linear.run_from(before, self.rules())[0]
        closed = jnp.zeros_like(self.fixed.output_bias)
        return FrozenNetwork(linear, Fixed(self.fixed.choices, before, logits, closed))

    def bias_products(
        self,
        x: jax.Array,
        label: jax.Array,
        after: Callable[[int, jax.Array], jax.Array] | None = None,
    ) -> tuple[jax.Array, list[jax.Array]]:
        """The map ∇ₓF ⊙ x (1, H, W, C) and every ∇_{b_l}F ⊙ b_l of Eq. 14; `after` as in `rules`.

        The array of a bias has the shape of the value that it is added to.
        """
        return self._products(self.graph.run, x, label, after)

    def output_products(self, x: jax.Array, label: jax.Array) -> list[jax.Array]:
        """The part of every bias product that is F_0: what reaches the logit past all activations.

        The sum of all is F_0 of the label.
        """
        return self._products(self.graph.run_closed, jnp.zeros_like(x), label)[1]

    def _products(
        self,
        run: Callable[[jax.Array, Rules], jax.Array],
        x: jax.Array,
        label: jax.Array,
        after: Callable[[int, jax.Array], jax.Array] | None = None,
    ) -> tuple[jax.Array, list[jax.Array]]:
        probes = [jnp.zeros(site.shape, site.dtype) for site in self.graph.biases]
        biases = list(probes)

        def logit(x: jax.Array, probes: Sequence[jax.Array]) -> jax.Array:
            def bias(index: int, value: jax.Array, constant: jax.Array) -> jax.Array:
                biases[index] = constant
                return value + probes[index]

            return run(x, self.rules(bias=bias, after=after))[0, label]

        _, pull_back = jax.vjp(logit, x, probes)
        gradient, bias_gradients = pull_back(jnp.ones((), self.fixed.logits.dtype))
        # 0 where no gradient arrives: −∞ that a pool or a softmax never chose adds nothing.
        pairs = zip(bias_gradients, biases, strict=True)
        return gradient * x, [jnp.where(g == 0, 0, g * b) for g, b in pairs]
