"""Five optimisation steps equal `torch.optim.RMSprop` with double back-propagation, in float64.

The stored arrays come from `tests/references/make_torch_dmbp.py`; where PyTorch is installed the
same script's functions are run again and must give them.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
from short_methods import slow_beside
from small_networks import NETWORKS, apply_fn_of, make_image, make_params

import dmbp_jax

REFERENCES = Path(__file__).parents[1] / "references"
STEPS, LABEL, SEED = 5, 1, 0
pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture(scope="module")
def stored():
    with np.load(REFERENCES / "torch_dmbp.npz") as arrays:
        return dict(arrays)


LOSSES = ["all", "positive-negative", "positive"]
OTHERS = [(name, loss) for name in NETWORKS if name != "residual" for loss in LOSSES[1:]]
ALIKE = [("dense", LOSSES[0]), ("pointwise", LOSSES[0])]


@pytest.mark.parametrize(
    "name, loss",
    slow_beside([(name, loss) for name in NETWORKS for loss in LOSSES], *OTHERS, *ALIKE),
)
def test_five_steps_are_pytorchs(stored, name, loss):
    layers = NETWORKS[name]
    attribution = dmbp_jax.attribute(
        make_params(layers, SEED),
        make_image(SEED),
        LABEL,
        apply_fn=apply_fn_of(layers),
        config=dmbp_jax.DMBP(steps=STEPS, loss=loss),
        return_masks=True,
    )
    key = f"{name}/{loss}"
    np.testing.assert_allclose(attribution.history, stored[f"{key}/history"], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(attribution.positive, stored[f"{key}/positive"], 1e-8, 1e-10)
    np.testing.assert_allclose(attribution.negative, stored[f"{key}/negative"], 1e-8, 1e-10)
    for index, mask in enumerate(attribution.masks):
        np.testing.assert_allclose(mask, stored[f"{key}/masks_{index}"], rtol=1e-8)


def test_stored_arrays_are_what_pytorch_computes(stored):
    pytest.importorskip("torch")
    sys.path.insert(0, str(REFERENCES))
    from make_torch_dmbp import references

    for key, array in references().items():
        np.testing.assert_allclose(stored[key], array, rtol=1e-9, atol=1e-12, err_msg=key)
