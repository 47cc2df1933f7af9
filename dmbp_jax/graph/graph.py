"""A network with rules: evaluate its program with any behaviour at its pieces and biases.

`Graph.freeze` fixes all that x decides: the affine network of Eq. 4, with what is asked of it.
"""

import itertools
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dmbp_jax.graph.affine import evaluate_affine, is_convolution_of_path, read
from dmbp_jax.graph.biases import adds_constant, bind_linear
from dmbp_jax.graph.convolution import adjoint_kernel
from dmbp_jax.graph.jaxprs import bind, user_code
from dmbp_jax.graph.linearisation import Linearisation
from dmbp_jax.graph.pieces import Choice, FrozenFactor, LinearPart, Piece, Pointwise
from dmbp_jax.graph.program import BiasGroup, Operand, Program, Site, Step, Stretch
from dmbp_jax.graph.rules import Rules, applying, choosing


class Graph:
    """A network at one image, with its arrays; lives inside one JAX trace.

    Values that depend on the parameters alone are computed once here, so that they stay unbatched
    when `run` is vmapped over images.
    """

    def __init__(
        self,
        program: Program,
        inputs: Sequence[Any],
        linearisation: Linearisation = Linearisation(),  # noqa: B008 (frozen)
    ):
        self._program = program
        self._adds_biases = True
        self._of_magnitudes = False
        self._constants: dict[int, Any] = dict(zip(program.inputs, inputs, strict=True))
        for step in program.steps:
            if step.kind == "constant":
                evaluate_affine(step, self._constants, {})
        self._pieces = {
            step.results[0]: self._with_constants(step, linearisation)
            for step in program.steps
            if step.piece is not None
        }
        self._adjoints = {
            step.results[0]: adjoint_kernel(read(self._constants, step.operands[1]), step.params)
            for step in program.steps
            if step.results[0] in program.adjoints
        }

    def without_biases(self) -> "Graph":
        """The linear part of the network: every additive constant and every intercept is 0.

        With choices recorded on the whole network, `run(x)` is then ∇ₓFᵀx, one forward pass.
        """
        linear = copy(self)
        linear._adds_biases = False
        # Whether a linear part is masked is said by the piece it is of, not by its class.
        linear._pieces = {  # pyrefly: ignore[bad-assignment]
            result: LinearPart(piece) if piece.has_intercept else piece
            for result, piece in self._pieces.items()
        }
        return linear

    def with_magnitudes(self) -> "Graph":
        """The linear part of the network with |w| for every weight w.

        With choices recorded on the whole network and x ≥ 0, each of its values is the sum of the
        absolute contributions of the pixels. What a piece multiplies by is left to the rules.
        """
        absolute = self.without_biases()
        absolute._constants = {name: _magnitude(value) for name, value in self._constants.items()}
        absolute._adjoints = {name: abs(kernel) for name, kernel in self._adjoints.items()}
        absolute._of_magnitudes = True
        return absolute

    @property
    def masked(self) -> tuple[Site, ...]:
        """Sites of the masked pieces (activations) in order of evaluation."""
        return self._program.masked

    @property
    def pooled(self) -> tuple[bool, ...]:
        """Of every masked piece, whether nothing but pools (and frozen factors) reads its value."""
        return self._program.pooled

    @property
    def biases(self) -> tuple[Site, ...]:
        """The places where a constant is added, in order of evaluation."""
        return self._program.biases

    def freeze(self, x: jax.Array) -> "FrozenNetwork":
        """The network frozen at one image `x` (1, H, W, C)."""
        choices: list[Choice] = []
        before = self.before_pieces(x)
        logits = self.run_from(before, Rules(choosing(choices)))[0]
        closed = self.run_closed(jnp.zeros_like(x), Rules(applying(choices)))[0]
        return FrozenNetwork(self, Fixed(tuple(choices), before, logits, closed))

    def run(self, x: jax.Array, rules: Rules = Rules()) -> jax.Array:  # noqa: B008 (frozen)
        """Logits (1, classes) of one image (1, H, W, C) under `rules`. Differentiable."""
        values = self._constants | {self._program.image: x}
        self._advance(values, rules, self._program.whole)
        return read(values, self._program.logits)

    def run_closed(self, x: jax.Array, rules: Rules) -> jax.Array:
        """Logits (1, classes) with every masked piece returning 0, whatever `rules` say of it.

        Steps that only feed masked pieces are left out: what they compute would be thrown away.
        """
        needed: set[Operand] = {self._program.logits}
        values = self._constants | {self._program.image: x}
        steps: list[Step] = []
        for step in reversed(self._program.steps):
            if step.kind == "constant" or needed.isdisjoint(step.results):
                continue
            if step.piece is not None and step.piece.masked:
                values[step.results[0]] = jnp.zeros(step.shape, step.dtype)
            else:
                steps.append(step)
                needed.update(step.operands)
        self._advance(values, rules, steps[::-1])
        return read(values, self._program.logits)

    def before_pieces(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """What no rule can change: the values before the first piece that later steps read.

        `run(x, rules) == run_from(before_pieces(x), rules)`; a loop over rules calls this once.
        """
        values = self._constants | {self._program.image: x}
        self._advance(values, Rules(), self._program.early)
        return tuple(values[name] for name in self._program.boundary)

    def run_from(self, boundary: tuple[jax.Array, ...], rules: Rules) -> jax.Array:
        """Logits (1, classes) from the values of `before_pieces`; `rules.bias` is not called."""
        values = self._constants | dict(zip(self._program.boundary, boundary, strict=True))
        rules = Rules(rules.piece, after=rules.after)
        self._advance(values, rules, self._program.late)
        return read(values, self._program.logits)

    def _advance(
        self, values: dict[int, Any], rules: Rules, parts: Sequence[Step | Stretch]
    ) -> None:
        at_once = rules.bias is None and self._adds_biases and not self._of_magnitudes
        for part in parts:
            if isinstance(part, Stretch) and at_once:
                reads = tuple(values[name] for name in part.reads)
                kernels = tuple(self._adjoints[name] for name in part.adjoints)
                with user_code(part.steps[0].equation, part.scope):
                    results = part.call(reads, kernels)
                values.update(zip(part.writes, results, strict=True))
                continue
            for step in part.steps if isinstance(part, Stretch) else (part,):
                with user_code(step.equation, step.scope):
                    self._take(step, values, rules)

    def _take(self, step: Step, values: dict[int, Any], rules: Rules) -> None:
        """One step, then what the rules make of its bias, then of the masked value."""
        result = step.results[0]
        if step.piece is not None:
            operands = itertools.compress(step.operands, step.depends)
            z = [read(values, operand) for operand in operands]
            values[result] = rules.piece(step.index, self._pieces[result], *z)
        elif self._of_magnitudes and not is_convolution_of_path(step):
            self._add_magnitudes(step, values)
        elif not self._adds_biases and adds_constant(step):
            operands = [read(values, operand) for operand in step.operands]
            values.update(zip(step.results, bind_linear(step, operands), strict=True))
        else:
            evaluate_affine(step, values, self._adjoints)
        if rules.bias is not None and result in self._program.bias_groups:
            index, group = self._program.bias_groups[result]
            values[result] = rules.bias(index, values[result], self._bias(group, values, rules))
        if rules.after is not None and step.piece is not None and step.piece.masked:
            values[result] = rules.after(step.index, values[result])

    def _add_magnitudes(self, step: Step, values: dict[int, Any]) -> None:
        """The linear part of a step with |w| for every weight, and every difference a sum."""
        operands = [_magnitude(read(values, operand)) for operand in step.operands]
        if step.name in ("sub", "neg", "scatter-sub"):
            operands[-1] = -operands[-1]
        values.update(zip(step.results, bind_linear(step, operands), strict=True))

    def _with_constants(self, step: Step, linearisation: Linearisation) -> Piece:
        """The piece of a step; a function or a factor gets the parameters that it reads."""
        assert step.piece is not None
        if isinstance(step.piece, FrozenFactor):
            return step.piece.bind(self._constants)
        if isinstance(step.piece, Pointwise):
            return step.piece.bind(self._constants, linearisation)
        return step.piece

    def _bias(self, group: BiasGroup, values: dict[int, Any], rules: Rules) -> jax.Array:
        """The additive constant of a group: the group applied to zero."""
        local = dict(values)
        for position in group.steps:
            step = self._program.steps[position]
            operands = [
                jnp.zeros_like(read(local, operand))
                if depends and position == group.steps[0]
                else read(local, operand)
                for operand, depends in zip(step.operands, step.depends, strict=True)
            ]
            if step.piece is not None:
                z = list(itertools.compress(operands, step.depends))
                return rules.piece(step.index, self._pieces[step.results[0]], *z)
            local.update(zip(step.results, bind(step.equation, operands), strict=True))
        return local[self._program.steps[group.steps[-1]].results[0]]


def _magnitude(value: Any) -> Any:
    """|value| of floating-point numbers; indices and conditions stay."""
    is_number = jnp.issubdtype(jnp.result_type(value), jnp.floating)
    return abs(value) if is_number else value


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

    @property
    def gates(self) -> tuple[Choice, ...]:
        """The choices of the activations."""
        return tuple(self.fixed.choices[site.index] for site in self.graph.masked)

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
        logits = linear.run_from(before, Rules(applying(self.fixed.choices)))[0]
        closed = jnp.zeros_like(self.fixed.output_bias)
        return FrozenNetwork(linear, Fixed(self.fixed.choices, before, logits, closed))

    def bias_products(
        self,
        x: jax.Array,
        label: jax.Array,
        after: Callable[[int, jax.Array], jax.Array] | None = None,
    ) -> tuple[jax.Array, list[jax.Array]]:
        """The map ∇ₓF ⊙ x and every ∇_{b_l}F ⊙ b_l of Eq. 14.

        Args:
          x: (1, H, W, C).
          after: as in `rules`.

        Returns:
          `(map (1, H, W, C), one array per bias, in the shape of the value it is added to)`.
        """
        biases: list[jax.Array] = []

        def logit(x: jax.Array, probes: Sequence[jax.Array]) -> jax.Array:
            def bias(index: int, value: jax.Array, constant: jax.Array) -> jax.Array:
                biases.append(constant)
                return value + probes[index]

            return self.graph.run(x, self.rules(bias=bias, after=after))[0, label]

        probes = [jnp.zeros(site.shape, site.dtype) for site in self.graph.biases]
        _, pull_back = jax.vjp(logit, x, probes)
        gradient, bias_gradients = pull_back(jnp.ones((), self.fixed.logits.dtype))
        return gradient * x, _multiply(bias_gradients, biases)

    def output_products(self, x: jax.Array, label: jax.Array) -> list[jax.Array]:
        """The part of `bias_products` that is F_0: what reaches the logit past all activations.

        Returns:
          One array per bias, in the shape of the value it is added to; their sum is F_0 of the
          label.
        """
        zeros = [jnp.zeros(site.shape, site.dtype) for site in self.graph.biases]
        biases = list(zeros)

        def logit(probes: Sequence[jax.Array]) -> jax.Array:
            def bias(index: int, value: jax.Array, constant: jax.Array) -> jax.Array:
                biases[index] = constant
                return value + probes[index]

            return self.graph.run_closed(jnp.zeros_like(x), self.rules(bias=bias))[0, label]

        _, pull_back = jax.vjp(logit, zeros)
        (gradients,) = pull_back(jnp.ones((), self.fixed.logits.dtype))
        return _multiply(gradients, biases)


def _multiply(gradients: Sequence[jax.Array], biases: Sequence[jax.Array]) -> list[jax.Array]:
    """∇b ⊙ b, 0 where no gradient arrives: −∞ that a pool or a softmax never chose adds nothing."""
    pairs = zip(gradients, biases, strict=True)
    return [jnp.where(g == 0, 0, g * b) for g, b in pairs]
