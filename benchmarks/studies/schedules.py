"""What a shorter schedule costs: IM, terms and the share of negative evidence against 200 steps.

    python -m benchmarks schedules [--photos 24] [--points 65]

On two real networks (SqueezeNet on ImageNet photos, ResNet-20 on CIFAR pictures); their weights
lie outside the repository, see benchmarks/faithfulness/real_networks.py.
"""

import argparse
import time

import jax.numpy as jnp
import numpy as np

import dmbp_jax
from benchmarks.faithfulness import real_networks

NETWORKS = ("SqueezeNet", "ResNet-20")
SCHEDULES = {
    "paper: 200 steps": dmbp_jax.DMBP(),
    "60 steps": dmbp_jax.DMBP(steps=60),
    "30 steps": dmbp_jax.DMBP(steps=30),
    "30 steps, rate .03": dmbp_jax.DMBP(steps=30, learning_rate=0.03),
    "DMBP.fast()": dmbp_jax.DMBP.fast(),
    "tolerance 1e-3": dmbp_jax.DMBP(tolerance=1e-3),
}


def load_network(name: str, count: int) -> tuple:
    """(params, apply_fn, images, labels)."""
    if name == "SqueezeNet":
        params, apply_fn, preprocess = real_networks.squeezenet()
        pictures = real_networks.photos()
    else:
        params, apply_fn, preprocess = real_networks.resnet20()
        pictures = real_networks.cifar()
    return params, apply_fn, *_load(*pictures, preprocess, count)


def _load(paths: list, labels: np.ndarray, preprocess, count: int) -> tuple:
    chosen = np.linspace(0, len(paths) - 1, count).astype(int)
    return jnp.stack([jnp.asarray(preprocess(paths[i])) for i in chosen]), labels[chosen]


def main() -> None:
    """Print one row per network and schedule."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--points", type=int, default=65)
    parser.add_argument("--schedules", nargs="+", choices=SCHEDULES, default=list(SCHEDULES))
    options = parser.parse_args()
    columns = ("network", "schedule", "IM", "y+", "y-", "y~", "negative share", "steps", "s")
    print(("{:<11} {:<18}" + " {:>9}" * 4 + " {:>15} {:>6} {:>6}").format(*columns))
    for name in options.networks:
        params, apply_fn, x, labels = load_network(name, options.photos)
        for schedule in options.schedules:
            config = SCHEDULES[schedule]
            began = time.perf_counter()
            a = dmbp_jax.attribute(params, x, labels, apply_fn=apply_fn, config=config)
            seconds = time.perf_counter() - began
            curve = dmbp_jax.metrics.insertion(
                params, x, labels, a.heatmap, apply_fn=apply_fn, points=options.points
            )
            share = (-a.y_negative / (a.y_positive - a.y_negative)).mean()
            terms = [float(v.mean()) for v in (a.y_positive, a.y_negative, a.y_nuisance)]
            print(
                f"{name:<11} {schedule:<18} {float(curve.auc.mean()):9.4f}"
                + "".join(f" {value:9.2f}" for value in terms)
                + f" {float(share):15.3f} {float(a.steps.mean()):6.0f} {seconds:6.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
