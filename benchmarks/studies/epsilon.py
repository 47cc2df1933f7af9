"""The optimiser's epsilon: y⁺ and y⁻ after 200 steps with three RMSProps of the same rate.

The table of docs/algorithm.md. The built-in network needs nothing; the others need weights and
photos that lie outside the repository (`real_networks.py`):

    python -m benchmarks epsilon --networks builtin
    python -m benchmarks epsilon --networks resnet20
"""

import argparse

import numpy as np
import optax
from PIL import Image

import dmbp_jax
from benchmarks.faithfulness.real_networks import HAVE_REAL, cifar, photos, resnet20, squeezenet
from dmbp_jax.data import generate
from dmbp_jax.data.generated import rival

OPTIMIZERS = {
    "PyTorch's: decay 0.99, ε outside": None,
    "decay 0.9, ε outside the root": optax.rmsprop(0.01, eps_in_sqrt=False),
    "`optax.rmsprop(0.01)`": optax.rmsprop(0.01),
}


def question(network: str, count: int) -> tuple:
    """(params, apply_fn, x, labels) of a network and its first pictures."""
    if network == "builtin":
        net = dmbp_jax.load("builtin")
        labels = np.arange(count) % 10
        samples = [generate(23, i, classes=[k, rival(k)]) for i, k in enumerate(labels)]
        return (
            net,
            None,
            np.stack([net.preprocess(Image.fromarray(s.image)) for s in samples]),
            labels,
        )
    if not HAVE_REAL:
        raise SystemExit(f"epsilon: {network} needs weights and photos; set DMBP_REAL.")
    params, apply_fn, preprocess = resnet20() if network == "resnet20" else squeezenet()
    paths, labels = cifar() if network == "resnet20" else photos()
    chosen = range(0, len(paths), max(1, len(paths) // count))[:count]
    return params, apply_fn, np.stack([preprocess(paths[i]) for i in chosen]), labels[list(chosen)]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["builtin"])
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    for network in args.networks:
        params, apply_fn, x, labels = question(network, args.pictures)
        print(f"| RMSProp, {network} | y | y⁺ | y⁻ |\n|---|---|---|---|")
        for title, optimizer in OPTIMIZERS.items():
            config = dmbp_jax.DMBP(steps=args.steps, optimizer=optimizer)
            att = dmbp_jax.attribute(params, x, labels, apply_fn=apply_fn, config=config)
            means = [float(np.mean(part)) for part in (att.y, att.y_positive, att.y_negative)]
            print(f"| {title} |", " | ".join(f"{mean:.2f}" for mean in means), "|", flush=True)


if __name__ == "__main__":
    main()
