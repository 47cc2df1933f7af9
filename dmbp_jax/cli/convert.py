"""`dmbp convert`: a PyTorch or safetensors checkpoint becomes a folded Flax safetensors file."""

import argparse

from dmbp_jax.cli.output import refuse_overwrite
from dmbp_jax.convert import convert_file


def run(args: argparse.Namespace) -> int:
    """Convert one file."""
    refuse_overwrite([args.target], force=args.force)
    convert_file(args.source, args.target, args.network, args.class_names)
    print(f"{args.source} -> {args.target} ({args.target.stat().st_size / 1e6:.1f} MB)")
    return 0
