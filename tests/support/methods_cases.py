"""The cases that tests of the compared methods share: a small network, an image and its oracle."""

from methods_oracle import Methods
from small_networks import NETWORKS, apply_fn_of, make_image, make_params

LABEL = 1
CLOSE = {"rtol": 1e-9, "atol": 1e-11}
APPLY = {name: apply_fn_of(layers) for name, layers in NETWORKS.items()}  # compiled once each
SPATIAL = ["conv", "pool", "residual"]


def make_case(name, seed=0):
    """(apply_fn, params, image, oracle) of one small network, float64."""
    layers = NETWORKS[name]
    params, x = make_params(layers, seed), make_image(seed)
    return APPLY[name], params, x, Methods(layers, params, LABEL)
