"""How many images are optimised at once when the caller does not say."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dmbp_jax.dmbp.explainer import bytes_per_image
from dmbp_jax.engine import memory
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
    return memory.rows_at_once(batch, None, bytes_per_image(relus), x)


IMAGE = bytes_per_image([Site("relu", 0, "relu", (1, 1000), "float32")])


@pytest.mark.parametrize(
    ("batch", "fitting", "chunk"),
    [(5, 100, 5), (100, 100, 100), (100, 60, 50), (61, 60, 31), (10, 4, 4), (3, 1, 1), (3, 0, 1)],
)
def test_equal_pieces_that_fit(batch: int, fitting: int, chunk: int) -> None:
    assert chosen(batch, int(fitting * IMAGE / 0.6) + 1) == chunk


@pytest.mark.parametrize(
    ("own", "each", "chunk"), [(10, 100, 10), (10, 5, 5), (11, 5, 4), (10, 0, 1)]
)
def test_of_several_devices_each_has_its_own_memory(own: int, each: int, chunk: int) -> None:
    assert chosen(own, int(each * IMAGE / 0.6) + 1, devices=4) == chunk


def test_simulated_devices_share_one_memory() -> None:
    resnet50, plenty = 9_608_704, 2**40
    assert chosen(8, plenty, units=resnet50, platform="cpu") == 8
    assert chosen(8, plenty, devices=4, units=resnet50, platform="cpu") == 2


@pytest.mark.parametrize("chunk_size", [1, 4, 7, 8, 100])
def test_a_chunk_is_cut_alike_on_every_device(chunk_size: int) -> None:
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    x = jax.device_put(jnp.ones((12, 2)), NamedSharding(mesh, PartitionSpec("data")))
    own = memory.rows_at_once(3, chunk_size, 1, x)
    assert own == {1: 1, 4: 1, 7: 1, 8: 2, 100: 3}[chunk_size]
    everywhere = jax.device_put(x, NamedSharding(mesh, PartitionSpec()))
    assert memory.rows_at_once(12, chunk_size, 1, everywhere) == min(12, chunk_size)


def test_a_cpu_takes_fewer_images_of_a_large_network() -> None:
    plenty = 2**40
    assert chosen(100, plenty, platform="cpu") == 15  # seven pieces of at most 16
    resnet50 = 9_608_704
    assert chosen(100, plenty, units=resnet50, platform="cpu") == 8
    assert chosen(9, plenty, units=resnet50, platform="cpu") == 5
    assert chosen(3, plenty, units=10**9, platform="cpu") == 1
