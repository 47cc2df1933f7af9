"""Several devices: each computes its own rows, chunked or not, on meshes of every kind."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from short_methods import one_of_each_kind, run, slow_beside
from small_networks import NETWORKS, apply_fn_of, make_image, make_params

import dmbp_jax
from dmbp_jax import metrics
from dmbp_jax.engine import driver

LAYERS = NETWORKS["conv"]
PARAMS = jax.tree.map(lambda a: np.float32(a), make_params(LAYERS, 0))
IMAGES = np.stack([make_image(seed) for seed in range(8)]).astype(np.float32)
LABELS = np.arange(8) % 3
NETWORK = apply_fn_of(LAYERS)
FEW = dmbp_jax.DMBP(steps=2)
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute")


def lay(array, spec, kind=AxisType.Auto, shape=(4,), names=("data",)):
    mesh = jax.make_mesh(shape, names, axis_types=(kind,) * len(shape))
    return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*spec)))


LAYOUTS = {
    "over the batch": lambda x: lay(x, ["data"]),
    "over the batch, JAX's default kind": lambda x: lay(x, ["data"], AxisType.Explicit),
    "over two axes": lambda x: lay(x, [("a", "b")], shape=(2, 2), names=("a", "b")),
    "half over the batch": lambda x: lay(x, ["b"], shape=(2, 2), names=("a", "b")),
    "over the rows": lambda x: lay(x, [None, "data"], shape=(2,)),
    "over batch and rows": lambda x: lay(x, ["a", "b"], shape=(2, 2), names=("a", "b")),
    "everywhere": lambda x: lay(x, []),
    "everywhere, default kind": lambda x: lay(x, [], AxisType.Explicit),
    "on another device": lambda x: jax.device_put(x, jax.devices()[2]),
}


def attribute(x, label=LABELS, **options):
    return dmbp_jax.attribute(PARAMS, x, label, apply_fn=NETWORK, config=FEW, **options)


@pytest.fixture(scope="module")
def expected():
    return attribute(IMAGES)


def assert_close(ours, theirs):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, theirs)


WHOLE = [(name, None) for name in LAYOUTS if not name.startswith("over the batch")]
DEAR = [
    *((name, 4) for name in LAYOUTS),
    *(
        (name, 3)
        for name in ("over two axes", "everywhere", "half over the batch", "over batch and rows")
    ),
]
CASES = [(name, chunk_size) for name in LAYOUTS for chunk_size in (None, 4, 3)]


@pytest.mark.parametrize(("name", "chunk_size"), slow_beside(CASES, *WHOLE, *DEAR))
def test_results_lie_where_the_images_do(name, chunk_size, expected):
    x = LAYOUTS[name](IMAGES)
    result = attribute(x, chunk_size=chunk_size)
    assert_close(result, expected)
    assert all(a.sharding.device_set == x.sharding.device_set for a in jax.tree.leaves(result))
    rows = {len(shard.data) for shard in result.map.addressable_shards}
    assert rows == {len(shard.data) for shard in x.addressable_shards}
    if isinstance(x.sharding, NamedSharding):
        assert {a.sharding.mesh for a in jax.tree.leaves(result)} == {x.sharding.mesh}
        if x.sharding.spec[:1] not in ((), (None,)):
            assert {a.sharding.spec[0] for a in jax.tree.leaves(result)} == {x.sharding.spec[0]}
    assert (result.map * x).shape == x.shape  # maps and images go together
    assert_close(result[3], expected[3])


@pytest.mark.parametrize("options", [{}, {"progress": True}])
def test_a_device_computes_its_own_rows(options, monkeypatch):
    """Counted in the program of the loop: of four images in a chunk each device has one."""
    counted = {}

    def find(explainer, rows):
        programs = found(explainer, rows)

        def advance(leaves, state):
            program = programs.advance.lower(leaves, state).compile()
            counted["flops"] = program.cost_analysis()["flops"]
            counted["collectives"] = [one for one in COLLECTIVES if one in program.as_text()]
            counted["rows"] = {len(s.data) for a in state if a.ndim for s in a.addressable_shards}
            return programs.advance(leaves, state)

        return programs._replace(advance=advance)

    found = driver.find
    monkeypatch.setattr(driver, "find", find)
    attribute(IMAGES[:4], LABELS[:4])
    alone = counted["flops"]
    for chunk_size in (4, None):
        attribute(lay(IMAGES, ["data"]), chunk_size=chunk_size, **options)
        images = (chunk_size or 8) // 4
        assert counted["rows"] == {images} and not counted["collectives"]
        assert 0.9 < 4 * counted["flops"] / (alone * images) < 1.1


@pytest.mark.parametrize(
    ("kind", "chunk_size"),
    slow_beside(
        list(itertools.product([AxisType.Auto, AxisType.Explicit], [None, 4])),
        (AxisType.Auto, 4),
        (AxisType.Explicit, None),
    ),
)
def test_inside_jit_a_device_computes_its_own_rows(kind, chunk_size, expected):
    x = lay(IMAGES, ["data"], kind)
    call = jax.jit(lambda x, label: attribute(x, label, chunk_size=chunk_size))
    text = call.lower(x, LABELS).compile().as_text()
    assert not [one for one in COLLECTIVES if one in text]
    result = call(x, LABELS)
    assert_close(result, expected)
    assert {len(shard.data) for shard in result.map.addressable_shards} == {2}


@one_of_each_kind
def test_methods_on_several_devices(name):
    theirs = run(NETWORK, name, PARAMS, IMAGES, LABELS, chunk_size=4)
    x = lay(IMAGES, ["data"], AxisType.Explicit)
    ours = run(NETWORK, name, PARAMS, x, LABELS, chunk_size=4)
    assert_close(ours, theirs)
    assert ours.sharding.mesh == x.sharding.mesh and ours.sharding.spec[0] == "data"


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_metrics_on_several_devices(kind, expected):
    def results(x, heatmap):
        options = {"apply_fn": NETWORK, "points": 4, "chunk_size": 8}
        return (
            metrics.insertion(PARAMS, x, LABELS, heatmap, **options),
            metrics.deletion(PARAMS, x, LABELS, heatmap, **options),
            metrics.rank_correlation(heatmap, heatmap),
            metrics.attribution_inside(heatmap, np.ones(x.shape[:3], bool)),
        )

    x = lay(IMAGES, ["data"], kind)
    ours = results(x, attribute(x))
    assert_close(ours, results(IMAGES, expected))
    assert {len(shard.data) for shard in ours[0].scores.addressable_shards} == {2}


@pytest.mark.slow
def test_a_mesh_that_is_set(expected):
    mesh = jax.make_mesh((4,), ("data",))
    assert mesh.axis_types == (AxisType.Explicit,)
    with jax.set_mesh(mesh):
        x = jax.device_put(IMAGES, PartitionSpec("data"))
        for images in (x, IMAGES):
            assert_close(attribute(images, chunk_size=4), expected)
        inside = jax.jit(lambda x: attribute(x))(x)
        assert_close(inside, expected)
        assert jax.typeof(inside.map).sharding.spec[0] == "data"
        assert attribute(x).heatmap.sharding == jnp.sum(x, -1).sharding


def test_fewer_images_than_devices(expected):
    x = lay(IMAGES[:2], [None, "data"], shape=(2,))
    assert_close(attribute(x, LABELS[:2], chunk_size=1), expected[:2])
    one = lay(IMAGES[:4], ["data"])
    assert_close(attribute(one, LABELS[:4], chunk_size=1), expected[:4])  # one on each device
