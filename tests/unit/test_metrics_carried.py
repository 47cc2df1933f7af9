"""What a map carries of its own total, worked by hand and against `Attribution.carried`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import NETWORKS, apply_fn_of, make_image, make_params

import dmbp_jax
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.metrics import carried

MAPS = np.array([[[1.0, 2.0]], [[-1.0, 3.0]], [[4.0, -4.0]], [[0.0, 0.0]], [[-1.0, -1.0]]])


def test_by_hand():
    # Sums 3, 2, 0, 0, −2. Rests 0, −3, 5, 0, 8: shares 3/3, 2/5, 0/5, complete, 2/10.
    shares = carried(MAPS, [3.0, -1.0, 5.0, 0.0, 6.0])
    np.testing.assert_allclose(shares, [1.0, 0.4, 0.0, 1.0, 0.2], rtol=1e-6)


def test_scale_and_sign_do_not_matter():
    totals = np.array([2.0, -1.0, 5.0, 0.0, 6.0])
    np.testing.assert_allclose(carried(-7 * MAPS, -7 * totals), carried(MAPS, totals), rtol=1e-6)


def test_a_single_map_gives_a_scalar():
    assert carried(MAPS[0], 6.0).shape == ()
    assert float(carried(MAPS[0], 6.0)) == 0.5


def test_what_is_not_finite_carries_nothing_known():
    maps = MAPS.copy()
    maps[0, 0, 0], maps[1, 0, 0] = np.nan, np.inf  # refused outside
    shares = jax.jit(carried)(maps, np.zeros(5))
    np.testing.assert_array_equal(np.isnan(shares), [True, True, False, False, False])


@pytest.mark.usefixtures("x64")
def test_float64_stays():
    assert carried(MAPS, np.zeros(5)).dtype == jnp.float64


@pytest.mark.usefixtures("x64")
def test_is_the_attributions_own_share_of_each_sign():
    layers = NETWORKS["residual"]
    params, x = make_params(layers, 0), make_image(0)
    network = apply_fn_of(layers)
    a = dmbp_jax.attribute(params, x, 1, apply_fn=network, config=dmbp_jax.DMBP.quick())
    signs = ((a.positive, a.y_positive), (a.negative, a.y_negative))
    ours = [carried(heat.sum(-1), total) for heat, total in signs]
    np.testing.assert_allclose(ours, a.carried, rtol=1e-9)


@pytest.mark.parametrize(
    ("heatmap", "total", "error", "message"),
    [
        (MAPS, [1.0], InputError, r"total: Expected shape \(5,\), got \(1,\)"),
        (MAPS[0], [1.0], InputError, r"total: Expected shape \(\), got \(1,\)"),
        (MAPS, [1.0, 2.0, 3.0, 4.0, np.nan], InputError, "total: Expected finite values"),
        (MAPS, None, InputTypeError, "total: Expected an array"),
        (np.zeros(3), 1.0, InputError, "heatmap: Expected shape"),
    ],
)
def test_refusals(heatmap, total, error, message):
    with pytest.raises(error, match=message):
        carried(heatmap, total)
