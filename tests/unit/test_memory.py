"""How many images are optimised at once when the caller does not say."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from dmbp_jax import DMBP
from dmbp_jax.dmbp.explainer import DmbpExplainer, bytes_per_image
from dmbp_jax.engine import memory
from dmbp_jax.graph.call import check_call
from dmbp_jax.graph.program import Site


def chosen(
    batch: int, free: int, devices: int = 1, units: int = 1000, platform: str = "gpu"
) -> int:
    """The chunk of `batch` images, for a network with `units` ReLU units and `free` bytes."""
    stats = {"bytes_limit": free + 5, "bytes_in_use": 5}
    machine = [
        SimpleNamespace(id=number, platform=platform, memory_stats=lambda: stats)
        for number in range(devices)
    ]
    x = SimpleNamespace(shape=(batch, 8, 8, 3), devices=lambda: machine)
    relus = [Site("relu", 0, "relu", (1, units), "float32")]
    return memory.fitting_rows(batch, bytes_per_image(relus), x)


IMAGE = bytes_per_image([Site("relu", 0, "relu", (1, 1000), "float32")])


@pytest.mark.parametrize(
    ("batch", "fitting", "chunk"),
    [(5, 100, 5), (100, 100, 100), (100, 60, 50), (61, 60, 31), (10, 4, 4), (3, 1, 1), (3, 0, 1)],
)
def test_equal_pieces_that_fit(batch: int, fitting: int, chunk: int) -> None:
    assert chosen(batch, int(fitting * IMAGE / 0.6) + 1) == chunk


@pytest.mark.parametrize(
    ("batch", "each", "chunk"), [(40, 100, 40), (40, 5, 20), (44, 5, 16), (40, 0, 4)]
)
def test_a_sharded_batch_is_cut_alike_on_every_device(batch: int, each: int, chunk: int) -> None:
    assert chosen(batch, int(each * IMAGE / 0.6) + 1, devices=4) == chunk


def test_a_cpu_takes_fewer_images_of_a_large_network() -> None:
    plenty = 2**40
    assert chosen(100, plenty, platform="cpu") == 15  # seven pieces of at most 16
    resnet50 = 9_608_704
    assert chosen(100, plenty, units=resnet50, platform="cpu") == 8
    assert chosen(9, plenty, units=resnet50, platform="cpu") == 5
    assert chosen(3, plenty, units=10**9, platform="cpu") == 1


def test_a_tolerance_keeps_the_masks_and_the_memory_of_the_optimiser_twice() -> None:
    def rows(config: DMBP) -> int:
        call = check_call(jnp.eye(3), jnp.ones((8, 8, 3)), apply_fn=_network)
        return DmbpExplainer(call.network, config).bytes_per_row

    units, value = 3, 4
    assert rows(DMBP(tolerance=1e-3)) == rows(DMBP()) + 2 * units * value


def _network(params: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.maximum(x.mean((1, 2)) @ params, 0) @ params
