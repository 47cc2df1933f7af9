"""JAX's persistent compilation cache, which only the command line switches on.

A second `dmbp explain` with the same network and batch size then starts without compiling.
"""

import argparse


def add_option(parser: argparse.ArgumentParser) -> None:
    """The option of every command that compiles."""
    parser.add_argument(
        "--no-compilation-cache",
        action="store_true",
        help="compile again, and store no compiled program on disk",
    )


def use_cache(args: argparse.Namespace) -> None:
    """Store compiled programs beside the downloads, unless JAX has a folder already."""
    import jax

    from dmbp_jax.networks.download import cache_directory

    if args.no_compilation_cache:
        jax.config.update("jax_enable_compilation_cache", False)
    elif jax.config.jax_compilation_cache_dir is None:  # pyrefly: ignore[missing-attribute]
        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "compiled"))
