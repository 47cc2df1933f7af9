"""`dmbp networks`: the networks that `--network` and `dmbp_jax.load` know."""

import argparse

from dmbp_jax.networks.download import cache_directory
from dmbp_jax.networks.registry import NETWORKS, Checkpoint


def run(args: argparse.Namespace) -> int:
    """Print one line for each network."""
    row = "{:<18} {:>7}  {:<9} {}".format
    print(row("network", "classes", "input", "weights"))
    for name, entry in NETWORKS.items():
        size = entry.preprocessing.size
        print(row(name, len(entry.labels), f"{size}x{size}", where(entry.checkpoint)))
    return 0


def where(checkpoint: Checkpoint | None) -> str:
    """Where the weights are or come from, and what the file is checked by."""
    if checkpoint is None:
        return "inside the package"
    cached = cache_directory() / checkpoint.file
    source = f"to download: {checkpoint.url}"
    if checkpoint.package is not None:
        source = f"in the Python package {checkpoint.package}: {checkpoint.file}"
    place = f"here: {cached}" if cached.is_file() else source
    return f"{place} (checked by {checkpoint.check})"
