"""Weights of other frameworks, read without them and turned into Flax variables.

`.pth` files are read by an allow-list interpreter of their own: nothing in them is executed.
"""

from dmbp_jax.convert.checkpoint import read_checkpoint
from dmbp_jax.convert.conversion import convert, convert_file, read_weights
from dmbp_jax.convert.variables import load_variables, save_variables

__all__ = [
    "convert",
    "convert_file",
    "load_variables",
    "read_checkpoint",
    "read_weights",
    "save_variables",
]
