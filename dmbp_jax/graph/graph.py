"""The sites of a network (paper Sec. 3.1): every ReLU, max-pool and bias, found in its jaxpr.

What it does: traces `model(x)` for one image, inlines `jit`, `remat` and custom-derivative calls,
and sorts every equation that depends on x into ReLU, max-pool or affine. What comes back is a
`Graph` that evaluates the same network with a rule of the caller's at every site; all methods of
this package are such rules.

What it refuses, naming operation and scope: a non-affine operation other than ReLU and max-pool
on the path from x, control flow on that path, and a network without a ReLU. Because of the first
rule a bare `max(x, 0)` can be trusted to be a ReLU: the clamps inside normalisation layers come
with a square or a product of two dependent values and are refused there.

JAX versions: only `jax.make_jaxpr`, `jax.extend.core` and `primitive.bind` are used. Up to 0.11
calls hold a `ClosedJaxpr`, from 0.12 a `Jaxpr` with its constants; `_body` hides the difference.
Parameters of scan, while and cond are never read.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex
from jax.typing import ArrayLike

from dmbp_jax.errors import ControlFlowError, NonAffineError, NoReluError
from dmbp_jax.graph.convolution import (
    adjoint_kernel,
    convolve,
    has_plain_adjoint,
    is_pointwise,
    mix_features,
)
from dmbp_jax.graph.model import ApplyFn, Model, abstract, bind, check_images, count_classes
from dmbp_jax.graph.pieces.max_pool import GlobalPool, Pool, WindowPool


@dataclass(frozen=True)
class Site:
    """One place of a network that a method may act on.

    Attributes:
      kind: "relu", "max_pool" or "bias".
      index: position among the sites of its kind, in order of evaluation.
      name: unique name made of the name scopes around it, such as `ResNet/layer1_0/relu1`.
      shape: shape of the ReLU's or pool's value, or of the value after the bias was added, for one
        image (leading axis 1).
      dtype: its dtype.
    """

    kind: str
    index: int
    name: str
    shape: tuple[int, ...]
    dtype: Any


def _plain_relu(index: int, z: jax.Array) -> jax.Array:
    return jax.nn.relu(z)


def _plain_max_pool(index: int, pool: Pool, z: jax.Array) -> jax.Array:
    return pool(z)


@dataclass(frozen=True)
class Rules:
    """What to do at every site. Defaults evaluate the network as it is.

    Attributes:
      relu: `(index, z) -> value` with the pre-activation z.
      max_pool: `(index, pool, z) -> value`.
      bias: `(index, value, bias) -> value`, where `value` already contains the additive constant
        `bias`; None (the default) skips the hook.
    """

    relu: Callable[[int, jax.Array], jax.Array] = _plain_relu
    max_pool: Callable[[int, Pool, jax.Array], jax.Array] = _plain_max_pool
    bias: Callable[[int, jax.Array, jax.Array], jax.Array] | None = None


# How an operation may depend on x and stay affine: the operands that may do so at the same time.
_ANY_OPERANDS = (
    *("add", "add_any", "sub", "neg", "real", "split", "copy", "copy_p", "reduce_precision"),
    *("reshape", "transpose", "broadcast_in_dim", "squeeze", "expand_dims", "rev", "slice"),
    *("concatenate", "stack", "unstack", "tile", "pad", "convert_element_type"),
    *("reduce_sum", "cumsum", "reduce_window_sum", "sharding_constraint", "layout_constraint"),
    *("optimization_barrier", "pvary", "pcast", "device_put"),
)
_JOINTLY_LINEAR = {
    "gather": (0,),
    "dynamic_slice": (0,),
    "dynamic_update_slice": (0, 1),
    "scatter": (0, 2),
    "scatter-add": (0, 2),
    "scatter-sub": (0, 2),
    "div": (0,),
}
_BILINEAR = {"mul", "dot_general", "conv_general_dilated"}  # at most one operand
_CONTROL_FLOW = {"scan", "while", "cond", "shard_map", "xla_pmap", "pmap"}
_INLINED = {
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "remat2",
    "checkpoint",
    "remat",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
}
_KEEPS_ZERO = {"broadcast_in_dim", "convert_element_type", "reshape", "copy", "pvary", "pcast"}
_ELEMENTWISE = {"add", "add_any", "sub", "mul", "div", "neg", "convert_element_type"}
_MAY_ADD_CONSTANT = {
    "add",
    "add_any",
    "sub",
    "pad",
    "concatenate",
    "stack",
    "select_n",
    "dynamic_update_slice",
    "scatter",
    "scatter-add",
    "scatter-sub",
}
_HINTS = {
    "exp": "return logits, without softmax",
    "logistic": "return logits, without sigmoid (SiLU and Swish are not supported)",
    "tanh": "tanh and GELU are not supported",
    "erf": "GELU is not supported",
    "min": "ReLU6 is not a ReLU",
    "rsqrt": "use normalisation layers in inference mode, with running statistics",
    "sqrt": "use normalisation layers in inference mode, with running statistics",
    "square": "use normalisation layers in inference mode, with running statistics",
    "mul": "two values that both depend on x are multiplied (attention, gating, "
    "or a normalisation layer in training mode)",
    "gt": "write the ReLU as jax.nn.relu or jnp.maximum(x, 0); leaky ReLU is not supported",
    "ge": "write the ReLU as jax.nn.relu or jnp.maximum(x, 0); leaky ReLU is not supported",
    "max": "only max(x, 0) is a ReLU; a softmax also starts with a max: return logits",
}


@dataclass(frozen=True, eq=False)
class _Constant:
    """An operand whose value is known: a literal of the jaxpr. Hashed by identity."""

    value: Any


_Operand = int | _Constant  # an int names a value of the flattened program


@dataclass(frozen=True, eq=False)
class _Step:
    """One inlined equation; `kind` is constant, affine, relu or max_pool."""

    kind: str
    primitive: Any
    params: dict[str, Any]
    operands: tuple[_Operand, ...]
    results: tuple[int, ...]
    scope: str
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]
    depends: tuple[bool, ...]  # which operands depend on x
    after_site: bool = False  # depends on the value of a ReLU or max-pool
    index: int = -1  # among the sites of its kind
    pool: Pool | None = None

    def evaluate(self, values: Sequence[Any]) -> list[Any]:
        result = self.primitive.bind(*values, **self.primitive.get_bind_params(self.params))
        return list(result) if self.primitive.multiple_results else [result]


@dataclass(frozen=True)
class _BiasGroup:
    """A chain of elementwise operations with constants (conv + bias, BatchNorm): r ↦ a·r + b."""

    root: int
    steps: tuple[int, ...]  # positions in the program


@dataclass(frozen=True)
class _Plan:
    """The flattened program of a network, without any array."""

    steps: tuple[_Step, ...]
    inputs: tuple[int, ...]  # model arrays, then constants of the jaxpr; x is `image`
    image: int
    logits: _Operand
    sites: tuple[Site, ...]
    bias_groups: dict[int, tuple[int, _BiasGroup]]  # last step of the group -> (site index, group)
    boundary: tuple[int, ...]  # values before the first site that later steps still read


class Graph:
    """A network with rules: evaluate it with any behaviour at its ReLUs, max-pools and biases.

    Made by `trace`; lives inside one JAX trace. Values that depend on the parameters alone are
    computed once here, so that they stay unbatched when `run` is vmapped over images.
    """

    def __init__(self, plan: _Plan, inputs: Sequence[Any]):
        self._plan = plan
        self._constants: dict[int, Any] = dict(zip(plan.inputs, inputs, strict=True))
        for step in plan.steps:
            if step.kind == "constant":
                self._evaluate(step, self._constants)
        self._adjoints = {
            step.results[0]: adjoint_kernel(self._kernel(step), step.params)
            for step in plan.steps
            if _is_convolution_of_path(step)
            and has_plain_adjoint(step.params)
            and not is_pointwise(self._kernel(step).shape, step.params)
        }

    @property
    def sites(self) -> tuple[Site, ...]:
        """All sites in order of evaluation within their kinds."""
        return self._plan.sites

    @property
    def relus(self) -> tuple[Site, ...]:
        """The ReLU sites in order of evaluation."""
        return tuple(site for site in self.sites if site.kind == "relu")

    @property
    def max_pools(self) -> tuple[Site, ...]:
        """The max-pool sites in order of evaluation."""
        return tuple(site for site in self.sites if site.kind == "max_pool")

    @property
    def biases(self) -> tuple[Site, ...]:
        """The places where a constant is added, in order of evaluation."""
        return tuple(site for site in self.sites if site.kind == "bias")

    def run(self, x: jax.Array, rules: Rules = Rules()) -> jax.Array:
        """Logits (1, classes) of one image (1, H, W, C) under `rules`. Differentiable."""
        values = dict(self._constants)
        values[self._plan.image] = x
        self._advance(values, rules, [s for s in self._plan.steps if s.kind != "constant"])
        return self._read(values, self._plan.logits)

    def before_sites(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """What no rule can change: the values before the first site that later steps read.

        `run(x, rules) == run_from(before_sites(x), rules)`; a loop over rules calls this once.
        """
        values = dict(self._constants)
        values[self._plan.image] = x
        steps = [s for s in self._plan.steps if s.kind == "affine" and not s.after_site]
        self._advance(values, Rules(), steps)
        return tuple(values[name] for name in self._plan.boundary)

    def run_from(self, boundary: tuple[jax.Array, ...], rules: Rules) -> jax.Array:
        """Logits (1, classes) from the values of `before_sites`; `rules.bias` is not called."""
        values = dict(self._constants)
        values.update(zip(self._plan.boundary, boundary, strict=True))
        rules = Rules(rules.relu, rules.max_pool)
        self._advance(values, rules, self._late_steps())
        return self._read(values, self._plan.logits)

    def _late_steps(self) -> list[_Step]:
        return [s for s in self._plan.steps if s.after_site or s.kind in ("relu", "max_pool")]

    def _advance(self, values: dict[int, Any], rules: Rules, steps: Sequence[_Step]) -> None:
        for step in steps:
            if step.kind == "relu":
                (z,) = self._site_input(step, values)
                values[step.results[0]] = rules.relu(step.index, z)
            elif step.kind == "max_pool":
                (z,) = self._site_input(step, values)
                assert step.pool is not None
                values[step.results[0]] = rules.max_pool(step.index, step.pool, z)
            elif _is_convolution_of_path(step):
                values[step.results[0]] = self._convolve(step, values)
            else:
                self._evaluate(step, values)
            if rules.bias is not None and step.results[0] in self._plan.bias_groups:
                index, group = self._plan.bias_groups[step.results[0]]
                value = values[step.results[0]]
                values[step.results[0]] = rules.bias(index, value, self._bias(group, values))

    def _convolve(self, step: _Step, values: dict[int, Any]) -> jax.Array:
        x, kernel = (self._read(values, operand) for operand in step.operands)
        if is_pointwise(kernel.shape, step.params):
            return mix_features(x, kernel, step.params)
        if step.results[0] in self._adjoints:
            return convolve(x, kernel, self._adjoints[step.results[0]], step)
        return step.evaluate([x, kernel])[0]

    def _kernel(self, step: _Step) -> jax.Array:
        return self._read(self._constants, step.operands[1])

    def _bias(self, group: _BiasGroup, values: dict[int, Any]) -> jax.Array:
        """The additive constant of a group: the group applied to zero."""
        local = dict(values)
        for position in group.steps:
            step = self._plan.steps[position]
            operands = [
                jnp.zeros_like(self._read(local, operand))
                if depends and (position == group.steps[0])
                else self._read(local, operand)
                for operand, depends in zip(step.operands, step.depends, strict=True)
            ]
            local.update(zip(step.results, step.evaluate(operands), strict=True))
        return local[self._plan.steps[group.steps[-1]].results[0]]

    def _site_input(self, step: _Step, values: dict[int, Any]) -> list[Any]:
        return [
            self._read(values, operand)
            for operand, depends in zip(step.operands, step.depends, strict=True)
            if depends
        ]

    def _evaluate(self, step: _Step, values: dict[int, Any]) -> None:
        results = step.evaluate([self._read(values, operand) for operand in step.operands])
        values.update(zip(step.results, results, strict=True))

    @staticmethod
    def _read(values: dict[int, Any], operand: _Operand) -> Any:
        return operand.value if isinstance(operand, _Constant) else values[operand]


def _is_convolution_of_path(step: _Step) -> bool:
    """A convolution of a value that depends on x with a kernel that does not."""
    return step.primitive.name == "conv_general_dilated" and step.depends == (True, False)


def trace(model: Model, x: jax.Array | jax.ShapeDtypeStruct) -> Graph:
    """Find the sites of `model` at one image `x` (1, H, W, C) and return the network as a `Graph`.

    May be called while JAX is tracing; the returned graph belongs to that trace.

    Raises:
      NonAffineError: an operation on the path from x is neither affine, ReLU nor max-pool.
      ControlFlowError: x goes through scan, while or cond.
      NoReluError: no ReLU on the path from x.
    """
    plan, constants = _plan(model, x)
    return Graph(plan, [*jax.tree.leaves(model), *constants])


def sites(params: Any, x: ArrayLike, *, apply_fn: ApplyFn | None = None) -> tuple[Site, ...]:
    """List every ReLU, max-pool and bias of a network, in order of evaluation.

    Args:
      params: a callable pytree, or any pytree when `apply_fn` is given.
      x: (H, W, C) or (N, H, W, C) float image; only its shape and dtype matter.
      apply_fn: `(params, x) -> logits`.

    Returns:
      A tuple of `Site`; `site.name` is what `gradcam(layer=...)` takes.

    Raises:
      InputError, InputTypeError: as `attribute`.
      NonAffineError, ControlFlowError, NoReluError: the network is not supported; the message
        names the operation and its scope.

    Example:
      >>> import dmbp_jax, jax.numpy as jnp
      >>> def network(params, x):
      ...     return jnp.maximum(x.mean((1, 2)) @ params, 0) @ params
      >>> [(s.kind, s.name, s.shape) for s in
      ...  dmbp_jax.sites(jnp.eye(3), jnp.ones((8, 8, 3)), apply_fn=network)]
      [('relu', 'relu', (1, 3))]
    """
    model = bind(params, apply_fn)
    images = check_images(x).x
    count_classes(model, images)
    return list_sites(model, images)


def list_sites(model: Model, images: jax.Array) -> tuple[Site, ...]:
    """`sites` of a bound model for a checked batch (N, H, W, C); cached by structure and shape."""
    return _list_sites(*abstract(model), images.shape[1:], jnp.result_type(images))


@lru_cache(maxsize=64)
def _list_sites(treedef: Any, leaves: Any, shape: tuple[int, ...], dtype: Any) -> tuple[Site, ...]:
    model = jax.tree.unflatten(treedef, leaves)
    plan, _ = _plan(model, jax.ShapeDtypeStruct((1, *shape), dtype))
    return plan.sites


def _plan(model: Model, x: Any) -> tuple[_Plan, Sequence[Any]]:
    closed = jax.make_jaxpr(lambda model, x: model(x))(model, x)
    body, constants = _body(closed)
    flat = _Flattener()
    inputs = [flat.new() for _ in body.invars]
    extra = [flat.new(is_zero=_is_zero(value)) for value in constants]
    image = inputs.pop()
    flat.on_path.add(image)
    (logits,) = flat.inline(body, [*inputs, image], extra, scope="")
    relus = [step for step in flat.steps if step.kind == "relu"]
    if not relus:
        raise NoReluError(
            "Expected a network with at least one ReLU (jax.nn.relu or jnp.maximum(x, 0)) "
            "between x and the logits, got none, so there is nothing to mask."
        )
    bias_groups = _group_biases(flat.steps)
    return (
        _Plan(
            steps=tuple(flat.steps),
            inputs=(*inputs, *extra),
            image=image,
            logits=logits,
            sites=_name_sites(flat.steps, bias_groups),
            bias_groups={
                flat.steps[group.steps[-1]].results[0]: (index, group)
                for index, group in enumerate(bias_groups)
            },
            boundary=_boundary(flat, logits),
        ),
        constants,
    )


class _Flattener:
    """Walks a jaxpr once, inlining calls and classifying every equation."""

    def __init__(self) -> None:
        self.steps: list[_Step] = []
        self.on_path: set[int] = set()  # values that depend on x
        self.after_site: set[int] = set()  # values that depend on a site's value
        self._zeros: set[int] = set()  # constants known to be zero everywhere
        self._count = 0
        self._sites = {"relu": 0, "max_pool": 0}

    def new(self, is_zero: bool = False) -> int:
        self._count += 1
        if is_zero:
            self._zeros.add(self._count)
        return self._count

    def inline(
        self, body: Any, arguments: Sequence[_Operand], constants: Sequence[_Operand], scope: str
    ) -> list[_Operand]:
        names: dict[Any, _Operand] = dict(zip(body.invars, arguments, strict=True))
        names.update(zip(body.constvars, constants, strict=True))

        def read(atom: Any) -> _Operand:
            return _Constant(atom.val) if isinstance(atom, jex.Literal) else names[atom]

        for equation in body.eqns:
            operands = [read(atom) for atom in equation.invars]
            here = _join(scope, str(equation.source_info.name_stack))
            if equation.primitive.name in _INLINED:
                inner, inner_constants = _body(_only_jaxpr(equation))
                extra = [_Constant(value) for value in inner_constants]
                results = self.inline(inner, operands, extra, here)
            else:
                results = self._append(equation, operands, here)
            names.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in body.outvars]

    def _append(self, equation: Any, operands: list[_Operand], scope: str) -> list[int]:
        depends = tuple(operand in self.on_path for operand in operands)
        results = [self.new() for _ in equation.outvars]
        kind, pool = "constant", None
        if any(depends):
            kind, pool = self._classify(equation, operands, depends, scope)
            self.on_path.update(results)
        elif equation.primitive.name in _KEEPS_ZERO and self._known_zero(operands[0]):
            self._zeros.update(results)
        after_site = any(operand in self.after_site for operand in operands)
        index = -1
        if kind in self._sites:
            index = self._sites[kind]
            self._sites[kind] += 1
        if after_site or kind in self._sites:
            self.after_site.update(results)
        self.steps.append(
            _Step(
                kind=kind,
                primitive=equation.primitive,
                params=equation.params,
                operands=tuple(operands),
                results=tuple(results),
                scope=scope,
                shapes=tuple(getattr(v.aval, "shape", ()) for v in equation.outvars),
                dtypes=tuple(getattr(v.aval, "dtype", None) for v in equation.outvars),
                depends=depends,
                after_site=after_site,
                index=index,
                pool=pool,
            )
        )
        return results

    def _classify(
        self, equation: Any, operands: list[_Operand], depends: tuple[bool, ...], scope: str
    ) -> tuple[str, Pool | None]:
        name, params = equation.primitive.name, equation.params
        if name == "max" and sum(depends) == 1:
            other = operands[0] if depends[1] else operands[1]
            if self._known_zero(other):
                return "relu", None
        if name == "reduce_window_max" and all(step == 1 for step in params["base_dilation"]):
            return "max_pool", WindowPool(
                tuple(params["window_dimensions"]),
                tuple(params["window_strides"]),
                tuple((int(low), int(high)) for low, high in params["padding"]),
                tuple(params["window_dilation"]),
            )
        if name == "reduce_max":
            return "max_pool", GlobalPool(tuple(params["axes"]))
        if name in _CONTROL_FLOW:
            raise ControlFlowError(
                f"Expected a network without control flow between x and the logits, got {name!r} "
                f"{_at(scope)}. A ReLU inside it would need one gate per iteration; "
                "unroll the loop (for scanned layers: scan=False or a Python loop)."
            )
        if self._is_affine(equation, depends):
            return "affine", None
        hint = f" ({_HINTS[name]})" if name in _HINTS else ""
        raise NonAffineError(
            "Expected only affine operations, ReLUs and max-pools between x and the logits, "
            f"got {name!r} {_at(scope)}{hint}."
        )

    @staticmethod
    def _is_affine(equation: Any, depends: tuple[bool, ...]) -> bool:
        name = equation.primitive.name
        if not all(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in equation.outvars):
            return False
        if name in _ANY_OPERANDS:
            return True
        if name in _BILINEAR:
            return sum(depends) == 1
        if name == "select_n":
            return not depends[0]
        allowed = _JOINTLY_LINEAR.get(name, ())
        return all(position in allowed for position, value in enumerate(depends) if value)

    def _known_zero(self, operand: _Operand) -> bool:
        if isinstance(operand, _Constant):
            return _is_zero(operand.value)
        return operand in self._zeros


def _group_biases(steps: Sequence[_Step]) -> list[_BiasGroup]:
    """Join elementwise operations with constants into chains; keep those that add something."""
    reads: dict[int, int] = {}
    for step in steps:
        for operand in step.operands:
            if isinstance(operand, int):
                reads[operand] = reads.get(operand, 0) + 1
    open_chains: dict[int, list[int]] = {}  # result of the last step -> chain
    chains: list[list[int]] = []
    for position, step in enumerate(steps):
        if step.kind != "affine":
            continue
        name = step.primitive.name
        if name in _ELEMENTWISE and sum(step.depends) == 1:
            source = step.operands[step.depends.index(True)]
            chain = open_chains.pop(source, None) if reads.get(source) == 1 else None  # type: ignore[arg-type]
            if chain is None:
                chain = []
                chains.append(chain)
            chain.append(position)
            open_chains[step.results[0]] = chain
        elif name in _MAY_ADD_CONSTANT and not all(step.depends):
            chains.append([position])
    groups = []
    for chain in chains:
        if any(_adds_constant(steps[position]) for position in chain):
            first = steps[chain[0]]
            root = first.operands[first.depends.index(True)]
            assert isinstance(root, int)
            groups.append(_BiasGroup(root, tuple(chain)))
    groups.sort(key=lambda group: group.steps[-1])
    return groups


def _adds_constant(step: _Step) -> bool:
    name = step.primitive.name
    if name not in _MAY_ADD_CONSTANT or all(step.depends):
        return False
    constants = [
        operand
        for position, operand in enumerate(step.operands)
        if not step.depends[position] and not (name == "select_n" and position == 0)
    ]
    return any(
        not (isinstance(operand, _Constant) and _is_zero(operand.value)) for operand in constants
    )


def _boundary(flat: _Flattener, logits: _Operand) -> tuple[int, ...]:
    """Values that depend on x but on no site, and are read by a site or by what comes after one."""
    early = flat.on_path - flat.after_site
    wanted = {
        operand
        for step in flat.steps
        if step.after_site or step.kind in ("relu", "max_pool")
        for operand in step.operands
        if operand in early
    }
    if logits in early:
        wanted.add(logits)
    return tuple(sorted(wanted))  # type: ignore[type-var]


def _name_sites(steps: Sequence[_Step], groups: Sequence[_BiasGroup]) -> tuple[Site, ...]:
    """Unique names: the scope, with the kind appended unless the scope already ends in it."""
    found = [
        (step.kind, step.index, step.scope, step)
        for step in steps
        if step.kind in ("relu", "max_pool")
    ]
    found += [
        ("bias", index, steps[group.steps[-1]].scope, steps[group.steps[-1]])
        for index, group in enumerate(groups)
    ]
    names = []
    for kind, _, scope, _ in found:
        last = scope.rsplit("/", 1)[-1]
        names.append(scope if last.startswith(kind) else f"{scope}/{kind}".lstrip("/"))
    repeated = {name for name in names if names.count(name) > 1}
    seen: dict[str, int] = {}
    result = []
    for (kind, index, _, step), name in zip(found, names, strict=True):
        if name in repeated:
            seen[name] = seen.get(name, -1) + 1
            name = f"{name}_{seen[name]}"
        result.append(Site(kind, index, name, step.shapes[0], step.dtypes[0]))
    return tuple(result)


def _body(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """Equations and constants of a `ClosedJaxpr` (JAX up to 0.11) or a `Jaxpr` (from 0.12)."""
    return getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())


def _only_jaxpr(equation: Any) -> Any:
    for key in ("call_jaxpr", "jaxpr", "fun_jaxpr"):
        if key in equation.params:
            return equation.params[key]
    raise AssertionError(f"{equation.primitive.name} carries no jaxpr")


def _is_zero(value: Any) -> bool:
    if isinstance(value, jax.core.Tracer) or not hasattr(value, "dtype"):
        return isinstance(value, (int, float)) and value == 0
    return bool(jnp.issubdtype(value.dtype, jnp.number)) and not np.any(np.asarray(value))


def _join(outer: str, inner: str) -> str:
    """Concatenate name scopes, dropping what only JAX's own transformations wrote."""
    parts = []
    for part in (outer + "/" + inner).split("/"):
        while match := re.fullmatch(r"(?:vmap|jvp|transpose|remat|checkpoint)\((.*)\)", part):
            part = match[1]
        if part and not re.fullmatch(r"(?:p?jit\(.*\)|checkpoint|rematted_computation)", part):
            parts.append(part)
    return "/".join(parts)


def _at(scope: str) -> str:
    return f"at {scope!r}" if scope else "at the top level of the network"
