"""Compile `attribute` for a GPU on a machine that has none, and count what a step moves.

XLA reads the description of a card (`gpus/`) instead of the card. Nothing runs: kernels are not
tuned and no time is measured. Needs `pip install "jax[cuda13]"` or `cuda12`:

    python -m benchmarks gpu_compile --networks resnet50 vgg16 --batches 1 8 64
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

CARDS = tuple(sorted(path.stem for path in Path(__file__).with_name("cards").glob("*.txtpb")))
NETWORKS = ("resnet50", "vgg16")
NUMBERS = ("float32", "bfloat16")


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
    add("--tolerance", type=float, help="as in DMBP")
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
    config = dmbp_jax.DMBP(steps=args.steps, dtype=dtype, tolerance=args.tolerance)
    low = None if dtype is None else traced(dtype)
    explainer = DmbpExplainer(traced("float32"), config, low=low)
    program = jax.jit(driver.explain_traced).trace(explainer, (images, labels))
    return program.lower(lowering_platforms=("cuda",))


def compile_once(
    name: str, numbers: str, batch: int, card: str, args: argparse.Namespace
) -> dict[str, Any]:
    """Compile one program and count its step."""
    from benchmarks.gpu.gpu_kernels import count_step, summary

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


if __name__ == "__main__":
    sys.exit(main())
