"""From the options that several commands have to what they ask for."""

import argparse
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

import dmbp_jax
from dmbp_jax import DMBP, Network
from dmbp_jax.catalogue import BIASES, find_method
from dmbp_jax.errors import InputError
from dmbp_jax.networks.download import cache_directory


def make_config(args: argparse.Namespace) -> DMBP:
    """The settings of dmbp: the paper's unless `--quick`, `--steps` or `--loss` say otherwise."""
    given = {name: getattr(args, name, None) for name in ("steps", "loss")}
    given = {name: value for name, value in given.items() if value is not None}
    return DMBP.quick(**given) if args.quick else DMBP.paper(**given)


def make_biases(args: argparse.Namespace) -> str:
    """What becomes of the biases: refined with `--quick`, else left out as in the paper."""
    return args.biases or ("refine" if args.quick else BIASES[0])


def method_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of `--method`; those of dmbp, which another method would ignore, are refused."""
    unset = {"steps": None, "quick": False, "loss": None, "biases": None}
    given = [name for name, value in unset.items() if getattr(args, name, value) != value]
    if args.method == "dmbp":
        options = {"config": make_config(args), "biases": make_biases(args)}
    elif given:
        options = ", ".join(f"--{name}" for name in given)
        raise InputError(f"{options}: Expected only with --method dmbp, got {args.method}.")
    else:
        options = {}
    is_linearised = "nonaffine" in find_method(args.method).options
    return options | ({"nonaffine": args.nonaffine} if is_linearised else {})


def frozen_note(net: Network, x: np.ndarray, options: Mapping[str, Any]) -> str:
    """One sentence where the method takes factors of the network as constants.

    A network that the method does not take is refused here, before anything is written.
    """
    nonaffine = options.get("nonaffine")
    if nonaffine is None:
        return ""
    count = sum(site.kind == "frozen" for site in dmbp_jax.sites(net, x, nonaffine=nonaffine))
    if not count:
        return ""
    return (
        f"gates taken as constants at each image: {count} "
        "(normalisation statistics, attention weights and the like; dmbp_jax.sites lists them)"
    )


def use_compilation_cache(args: argparse.Namespace) -> None:
    """Store compiled programs beside the downloads, unless JAX has a folder already.

    A second `dmbp explain` with the same network and batch size then starts without compiling.
    Only the command line switches this on.
    """
    if args.no_compilation_cache:
        jax.config.update("jax_enable_compilation_cache", False)
    elif jax.config.jax_compilation_cache_dir is None:  # pyrefly: ignore[missing-attribute]
        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "compiled"))


def name_failures(failures: Iterable[tuple[str, str]], most: int, where: str) -> int:
    """Name pictures that failed, (file, reason), on stderr, at most `most`; how many there are."""
    count = 0
    for count, (file, reason) in enumerate(failures, start=1):
        if count <= most:
            print(f"dmbp: {file}: {' '.join(reason.split())}", file=sys.stderr)
    if count > most:
        print(f"dmbp: {count - most:,} more {where}", file=sys.stderr)
    return count
