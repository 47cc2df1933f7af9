"""Compile `attribute` for a GPU on a machine that has none, and count what a step moves.

XLA reads the description of a card (`cards/`) instead of the card. Nothing runs: kernels are not
tuned and no time is measured. Needs `pip install "jax[cuda13]"` or `cuda12`:

    python -m benchmarks gpu_compile --networks resnet50 vgg16 --batches 1 8 64

`count_step` counts in the HLO that XLA compiled. A kernel reads its operands and writes its
results, once each. Of a sliced operand what is read counts; a value updated in place counts what is
written.
"""

import argparse
import json
import math
import os
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CARDS = tuple(sorted(path.stem for path in Path(__file__).with_name("cards").glob("*.txtpb")))
NETWORKS = ("resnet50", "vgg16")
NUMBERS = ("float32", "bfloat16")
LAUNCH = 2e-6  # seconds between two kernels of a program
_BYTES = {"pred": 1, "bf16": 2, "f16": 2}  # of other types the digits are the bits
_NO_KERNEL = {
    "parameter",
    "get-tuple-element",
    "tuple",
    "bitcast",
    "constant",
    "partition-id",
    "after-all",
}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(
    r"^\s+(?:ROOT )?%?([\w.\-]+) = (\((?:[^()]|\([^()]*\))*\)|\S+) ([\w\-]+)\((.*)$"
)
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    add("--batches", nargs="+", type=int, default=[1, 8, 64])
    add("--numbers", nargs="+", choices=NUMBERS, default=list(NUMBERS))
    add("--cards", nargs="+", choices=CARDS, default=["h100"])
    add("--size", type=int, default=224, help="pixels of a side")
    add("--steps", type=int, default=200)
    add("--largest", type=int, default=0, metavar="N", help="also list the N largest kernels")
    add("--hlo", type=Path, metavar="FOLDER", help="keep the optimised HLO")
    add("--json", type=Path, help="where the results go")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Compile, count, print; 1 if XLA refuses a program."""
    args = parse(arguments)
    os.environ["JAX_PLATFORMS"] = "cpu"  # the arrays of this process
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # there is no driver to look at
    print(f"flags: {os.environ.get('XLA_FLAGS', 'defaults')}")
    head = f"{'compile':>9}{'kernels':>9}{'GB/step':>9}{'GFLOP':>8}{'MB/image':>10}"
    rows, refused = [], 0
    for card in args.cards:
        print(f"\n{card:5}{'':>28}{head}")
        for name in args.networks:
            for numbers in args.numbers:
                for batch in args.batches:
                    title = f"{name}, {numbers}, batch {batch}"
                    try:
                        row = compile_once(name, numbers, batch, card, args)
                    except Exception as error:
                        refused += 1
                        print(f"{title:33}REFUSED: {str(error).strip().splitlines()[0][:200]}")
                        continue
                    rows.append(row)
                    print(
                        f"{title:33}{row['seconds']:8.1f}s{row['kernels']:9d}{row['GB']:9.2f}"
                        f"{row['GFLOP']:8.0f}{row['scratch'] / batch / 1e6:10.0f}",
                        flush=True,
                    )
                    for one in row.pop("largest")[: args.largest]:
                        size = f"{one.bytes / 1e6:8.1f} MB"
                        print(f"  {size} {one.kind:22} {one.name:40} {one.type[:120]}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    return 1 if refused else 0


def device(card: str) -> Any:
    """A device of a card that need not be there."""
    from jax.experimental import topologies

    description = Path(__file__).with_name("cards") / f"{card}.txtpb"
    topology = topologies.get_topology_desc(
        "gpu", "cuda", topology="1x1x1", target_config=description.read_text()
    )
    return topology.devices[0]


def lower(name: str, numbers: str, batch: int, on: Any, args: argparse.Namespace) -> Any:
    """`attribute`'s program for a device, from shapes alone."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import SingleDeviceSharding

    import dmbp_jax
    from dmbp_jax.dmbp.explainer import DmbpExplainer
    from dmbp_jax.engine import driver
    from dmbp_jax.graph.model import bind
    from dmbp_jax.graph.tracing import TracedNetwork, trace
    from dmbp_jax.models import VGG16, ResNet50

    module = {"resnet50": ResNet50, "vgg16": VGG16}[name](classes=1000)
    where = SingleDeviceSharding(on)

    image = jax.ShapeDtypeStruct((1, args.size, args.size, 3), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), image)

    def traced(numbers: str) -> TracedNetwork:
        def shape(leaf: Any) -> jax.ShapeDtypeStruct:
            floating = jnp.issubdtype(leaf.dtype, jnp.floating)
            dtype = numbers if floating else leaf.dtype
            return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=where)

        variables = jax.tree.map(shape, shapes)
        network = dmbp_jax.Network(module=module, variables=variables, name=name)
        image_of_numbers = jax.ShapeDtypeStruct(image.shape, numbers)
        return jax.tree.map(shape, trace(bind(network), image_of_numbers))

    images = jax.ShapeDtypeStruct((batch, *image.shape[1:]), jnp.float32, sharding=where)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32, sharding=where)
    dtype = None if numbers == "float32" else numbers
    config = dmbp_jax.DMBP(steps=args.steps, dtype=dtype)
    low = None if dtype is None else traced(dtype)
    explainer = DmbpExplainer(traced("float32"), config, low=low)
    program = jax.jit(driver.explain_traced).trace(explainer, (images, labels))
    return program.lower(lowering_platforms=("cuda",))


def compile_once(
    name: str, numbers: str, batch: int, card: str, args: argparse.Namespace
) -> dict[str, Any]:
    """Compile one program and count its step."""
    lowered = lower(name, numbers, batch, device(card), args)
    begin = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - begin
    text = compiled.as_text()
    if args.hlo:
        args.hlo.mkdir(parents=True, exist_ok=True)
        (args.hlo / f"{name}-{numbers}-{batch}-{card}.txt").write_text(text)
    step = count_step(text)
    return {
        "network": name,
        "numbers": numbers,
        "batch": batch,
        "card": card,
        "seconds": seconds,
        "scratch": compiled.memory_analysis().temp_size_in_bytes,
        **summary(step),
        "by kind": {kind: (n, step.bytes[kind]) for kind, n in step.kernels.most_common()},
        "largest": step.largest,
    }


@dataclass(frozen=True)
class Instruction:
    """One line of HLO."""

    name: str
    type: str
    operation: str
    operands: list[str]
    attributes: str

    def attribute(self, pattern: str) -> str:
        """What a pattern with one group finds among the attributes; it is there."""
        found = re.search(pattern, self.attributes)
        assert found is not None, (self.name, pattern)
        return found[1]


@dataclass(frozen=True)
class Kernel:
    """What one kernel reads and writes, and its FLOPs where it is a convolution or a product."""

    name: str
    kind: str
    type: str
    bytes: int
    flops: int

    def least_seconds(self, flops: float, bandwidth: float) -> float:
        """Of a device with these peaks, in FLOP/s and bytes/s."""
        return max(self.bytes / bandwidth, self.flops / flops)


@dataclass
class Step:
    """What one pass of the loop does.

    Attributes:
      kernels: how many of each kind.
      bytes: read and written, by kind.
      flops: of convolutions and matrix products, by kind.
      largest: every kernel, the one that moves most first.
    """

    kernels: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    flops: Counter[str] = field(default_factory=Counter)
    largest: list[Kernel] = field(default_factory=list)

    def least_seconds(self, flops: float, bandwidth: float) -> float:
        """Of a device with these peaks (FLOP/s, bytes/s): each kernel by its slower one."""
        return sum(one.least_seconds(flops, bandwidth) + LAUNCH for one in self.largest)


def count_step(text: str) -> Step:
    """The kernels of the longest loop body of an optimised HLO module."""
    computations = _parse(text)
    bodies = [
        computations[instruction.attribute(r"body=%?([\w.\-]+)")]
        for instructions in computations.values()
        for instruction in instructions
        if instruction.operation == "while"
    ]
    body = max(bodies, key=len)
    types = {instruction.name: instruction.type for instruction in body}
    aliases = {one.name: one.operands[0] for one in body if one.operation == "bitcast"}
    step = Step()
    for instruction in body:
        if instruction.operation in _NO_KERNEL:
            continue
        kind, moved = _kind(instruction), _bytes(_result(instruction))
        sources = [_source(name, aliases) for name in instruction.operands]
        moved += sum(_bytes(types[name]) for name in dict.fromkeys(sources) if name in types)
        if instruction.operation == "fusion":
            moved -= _untouched(computations[instruction.attribute(r"calls=%?([\w.\-]+)")])
        flops = _flops(instruction, types, computations)
        step.kernels[kind] += 1
        step.bytes[kind] += moved
        step.flops[kind] += flops
        step.largest.append(Kernel(instruction.name, kind, instruction.type, moved, flops))
    step.largest.sort(key=lambda kernel: kernel.bytes, reverse=True)
    return step


def _parse(text: str) -> dict[str, list[Instruction]]:
    """Every computation of a module with its instructions."""
    computations: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in text.splitlines():
        line = re.sub(r"/\*index=\d+\*/", "", line)
        if header := _COMPUTATION.match(line):
            current = computations.setdefault(header[1], [])
        elif found := _INSTRUCTION.match(line):
            name, kind, operation, rest = found.groups()
            end = _closing_parenthesis(rest)
            operands = re.findall(r"%([\w.\-]+)", rest[:end])
            current.append(Instruction(name, kind, operation, operands, rest[end + 1 :]))
    return computations


def _closing_parenthesis(text: str) -> int:
    depth = 1
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position
    return len(text)


def _source(name: str, aliases: dict[str, str]) -> str:
    while name in aliases:
        name = aliases[name]
    return name


def _shapes(type_: str) -> list[tuple[str, list[int]]]:
    return [
        (kind, [int(size) for size in sizes.split(",") if size])
        for kind, sizes in _SHAPE.findall(type_)
    ]


def _bytes(type_: str) -> int:
    return sum(
        math.prod(sizes) * (_BYTES.get(kind) or max(1, int(re.sub(r"\D", "", kind)) // 8))
        for kind, sizes in _shapes(type_)
        if kind in _BYTES or re.fullmatch(r"[suf]\d+", kind)
    )


def _result(instruction: Instruction) -> str:
    """The type of what is written; the workspace of a library call is left out."""
    if instruction.operation != "custom-call":
        return instruction.type
    return re.sub(r", [us]8\[\d+\]\{0\}\)", ")", instruction.type)


def _kind(instruction: Instruction) -> str:
    if instruction.operation == "fusion":
        kind = instruction.attribute(r"kind=(\w+)")
        if kind == "kCustom" and "triton" in instruction.attributes:
            return "product, Triton"
        return f"fusion, {kind[1:].lower()}"
    if instruction.operation == "custom-call":
        return instruction.attribute(r'custom_call_target="([^"]+)"')
    return instruction.operation


def _untouched(fused: list[Instruction]) -> int:
    """Bytes of operands and results of a fusion that it neither reads nor writes."""
    types = {instruction.name: instruction.type for instruction in fused}
    total = 0
    for instruction in fused:
        if instruction.operation == "dynamic-update-slice":
            total += _bytes(instruction.type) - _bytes(types[instruction.operands[1]])
        if instruction.operation != "parameter":
            continue
        readers = [one for one in fused if instruction.name in one.operands]
        if readers and all(_reads_a_part(one, instruction.name) for one in readers):
            read = sum(_bytes(one.type) for one in readers if one.operation in _SLICES)
            total += max(0, _bytes(instruction.type) - read)
    return total


_SLICES = ("slice", "dynamic-slice", "gather")


def _reads_a_part(reader: Instruction, operand: str) -> bool:
    in_place = reader.operation == "dynamic-update-slice" and reader.operands[0] == operand
    return in_place or reader.operation in _SLICES


def _flops(
    instruction: Instruction, types: dict[str, str], computations: dict[str, list[Instruction]]
) -> int:
    """Of a library's convolution or matrix product, or of the products inside a fusion."""
    if instruction.operation == "fusion":
        fused = computations[instruction.attribute(r"calls=%?([\w.\-]+)")]
        inside = {one.name: one.type for one in fused}
        return sum(_flops(one, inside, computations) for one in fused)
    target = _kind(instruction) if instruction.operation == "custom-call" else ""
    is_product = instruction.operation == "dot" or "cublas" in target
    if not is_product and "conv" not in target:
        return 0
    first, second = (_shapes(types[name])[0][1] for name in instruction.operands[:2])
    result = _shapes(instruction.type)[0][1]
    if is_product:
        axis = instruction.attribute(r'lhs_contracting_dim\w+"?[:=][\[{]"?(\d+)')
        return 2 * math.prod(result) * first[int(axis)]
    labels = instruction.attribute(r"dim_labels=[\w?]+_([\w?]+)->")
    if "BackwardInput" in target:  # labels are those of the forward convolution
        return 2 * math.prod(first) * math.prod(second) // second[labels.index("o")]
    return 2 * math.prod(result) * math.prod(second) // second[labels.index("o")]


def summary(step: Step) -> dict[str, Any]:
    """The totals: kernels, GB and GFLOP."""
    return {
        "kernels": sum(step.kernels.values()),
        "GB": sum(step.bytes.values()) / 1e9,
        "GFLOP": sum(step.flops.values()) / 1e9,
    }
