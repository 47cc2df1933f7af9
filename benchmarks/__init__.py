"""Benchmarks, studies and pictures of dmbp-jax; not installed."""
