"""Flax modules of the networks; filled below."""
