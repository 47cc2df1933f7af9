"""`dmbp convert`: a PyTorch or safetensors checkpoint becomes a folded Flax safetensors file."""

import argparse

from dmbp_jax.cli.commands import add_class_names, add_command, as_path
from dmbp_jax.cli.output import refuse_overwrite

SUMMARY = "turn a PyTorch checkpoint into a file that loads in under a second"
DESCRIPTION = """\
Read a checkpoint (.pth in either PyTorch container, or .safetensors), fold BatchNorm into the
convolutions and write the result as safetensors. PyTorch is not needed, and nothing that a
checkpoint contains is executed.
"""
EXAMPLE = """\
example:
  dmbp convert resnet50-0676ba61.pth resnet50.safetensors --network resnet50
  dmbp explain dog.jpg --network resnet50 --weights resnet50.safetensors
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """`dmbp convert IN OUT --network NAME`."""
    parser = add_command(subparsers, "convert", run, SUMMARY, DESCRIPTION, EXAMPLE)
    parser.add_argument("source", metavar="IN", type=as_path, help="checkpoint to read")
    parser.add_argument("target", metavar="OUT", type=as_path, help="safetensors file to write")
    parser.add_argument(
        "--network", metavar="NAME", required=True, help="what it is (see dmbp networks)"
    )
    add_class_names(parser)
    parser.add_argument("--force", action="store_true", help="overwrite OUT")


def run(args: argparse.Namespace) -> int:
    """Convert one file."""
    refuse_overwrite([args.target], force=args.force)
    from dmbp_jax.convert import convert_file

    convert_file(args.source, args.target, args.network, args.class_names)
    print(f"{args.source} -> {args.target} ({args.target.stat().st_size / 1e6:.1f} MB)")
    return 0
