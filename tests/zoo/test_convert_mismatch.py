"""What does not fit is refused with the whole list; what is folded is BatchNorm, exactly."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references.cases import SMALL_RESNET, SMALL_VGG, random_state
from references.torchvision_cases import FULL_SIDES
from safetensors.numpy import load_file, save_file
from short_methods import slow_beside

import dmbp_jax
from dmbp_jax.convert import (
    convert,
    convert_file,
    load_variables,
    read_checkpoint,
    read_weights,
    save_variables,
)
from dmbp_jax.convert.conversion import convert_entry, layer_of, target_shapes
from dmbp_jax.convert.tables import CONV, CONV_BGR, DENSE, dense_behind, find_layer, table
from dmbp_jax.errors import (
    CorruptCheckpointError,
    InputError,
    InputTypeError,
    KeyMismatchError,
    WeightsError,
)
from dmbp_jax.networks.registry import NETWORKS, Entry, find_entry


def small(network: str, **changes) -> Entry:
    sizes = (SMALL_RESNET if network.startswith("resnet") else SMALL_VGG) | changes
    entry = find_entry(network)
    return replace(entry, module=entry.module.clone(**sizes))


def state_of(entry: Entry) -> dict[str, np.ndarray]:
    """A fitting state dict, named and shaped by the table of the conversion."""
    assert entry.checkpoint is not None
    rows = table(entry.module, entry.checkpoint)
    shapes = []
    for path, kernel in target_shapes(entry).items():
        if not path.endswith("kernel"):
            continue
        layer = find_layer(layer_of(path), rows)
        shapes.append((f"{layer.source}.weight", layer.transform.shapes(kernel)[0]))
        if layer.bias:
            shapes.append((f"{layer.source}.bias", kernel[-1:]))
        for part in ("weight", "bias", "running_mean", "running_var") if layer.norm else ():
            shapes.append((f"{layer.norm}.{part}", kernel[-1:]))
    return random_state(shapes)


def test_everything_wrong_is_listed_at_once():
    entry = small("resnet50")
    state_dict = state_of(entry)
    del state_dict["layer2.1.conv2.weight"], state_dict["bn1.running_var"]
    state_dict["fc.weight"] = state_dict["fc.weight"][:, :-1]
    state_dict["layer1.0.bn1.bias"] = np.zeros(9)
    state_dict["aux.weight"] = np.zeros(3)
    state_dict["layer1.0.conv4.weight"] = np.zeros((1, 1, 1, 1))
    with pytest.raises(KeyMismatchError) as caught:
        convert_entry(state_dict, "resnet50", entry)
    message = str(caught.value)
    for part in (
        "resnet50: 2 missing",
        "layer2.1.conv2.weight",
        "bn1.running_var",
        "2 unused",
        "aux.weight",
        "layer1.0.conv4.weight",
        "2 misshapen",
        "fc.weight: Expected (7, 128), got (7, 127)",
        "layer1.0.bn1.bias: Expected (4,), got (9,)",
    ):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "bool", "complex64"])
def test_numbers_that_are_no_weights(dtype):
    entry = small("resnet50")
    state_dict = state_of(entry)
    state_dict["fc.weight"] = state_dict["fc.weight"].astype(dtype)
    with pytest.raises(WeightsError, match=f"fc.weight: Expected floating-point .*, got {dtype}"):
        convert_entry(state_dict, "resnet50", entry)


@pytest.mark.parametrize("classes", [0, -1, 2.5, "7"])
def test_a_number_of_classes_that_is_none(classes):
    with pytest.raises((InputError, InputTypeError), match="classes: Expected"):
        convert({}, "resnet18", classes)


def test_a_name_given_twice():
    entry = small("resnet50_voc")
    state_dict = state_of(entry)
    state_dict["bn1.0.weight"] = state_dict["bn1.weight"]
    with pytest.raises(KeyMismatchError, match="1 given twice"):
        convert_entry(state_dict, "resnet50_voc", entry)


def test_a_turned_last_layer_is_no_other_number_of_classes():
    entry = find_entry("resnet18")
    state_dict = state_of(entry)
    state_dict["fc.weight"] = state_dict["fc.weight"].T
    with pytest.raises(KeyMismatchError, match="1 misshapen") as caught:
        convert_entry(state_dict, "resnet18", entry)
    assert "labels" not in str(caught.value)


def test_another_architecture():
    with pytest.raises(KeyMismatchError, match="missing"):
        convert(state_of(small("vgg16")), "resnet18")
    with pytest.raises(KeyMismatchError, match="unused"):
        convert_entry(state_of(small("vgg16_bn")), "vgg16", small("vgg16"))
    with pytest.raises(InputError, match="builtin"):
        convert({}, "builtin")


PREFIXES = [
    *["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "module.module."],
    *["model.", "net.", "backbone.", "encoder.", "model.backbone.", "student.module.encoder."],
    *["whatever.it.is.called.", "resnet."],
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_of_every_name_is_taken_off(prefix, tmp_path):
    entry = small("resnet18")
    state_dict = state_of(entry)
    expected = convert_entry(state_dict, "resnet18", entry)["params"]
    counters = {"bn1.num_batches_tracked": np.zeros(())}
    prefixed = {prefix + name: array for name, array in (state_dict | counters).items()}
    save_file(prefixed, tmp_path / "net.safetensors")
    found = convert_entry(read_checkpoint(tmp_path / "net.safetensors"), "resnet18", entry)
    assert jax.tree.all(jax.tree.map(np.array_equal, found["params"], expected))


def test_a_prefix_of_some_names_gets_a_hint():
    entry = small("resnet18")
    state_dict = state_of(entry)
    momentum = {f"encoder_{end}.{name}": state_dict[name] for end in "qk" for name in state_dict}
    with pytest.raises(
        KeyMismatchError, match=rf"{len(state_dict)} names fit without 'encoder_.\.'"
    ):
        convert_entry(momentum | {"queue": np.zeros(3)}, "resnet18", entry)
    strange = {f"{name}.x": array for name, array in state_dict.items()}
    with pytest.raises(KeyMismatchError, match="missing") as caught:
        convert_entry(strange, "resnet18", entry)
    assert "names fit" not in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite(bad):
    entry = small("resnet18")
    state_dict = state_of(entry)
    state_dict["layer3.0.conv1.weight"] = state_dict["layer3.0.conv1.weight"].copy()
    state_dict["layer3.0.conv1.weight"][0, 0, 0, 0] = bad
    with pytest.raises(WeightsError, match=r"layer3\.0\.conv1: Expected finite"):
        convert_entry(state_dict, "resnet18", entry)


def test_a_negative_variance():
    entry = small("resnet18")
    state_dict = state_of(entry) | {"bn1.running_var": np.full(4, -1.0)}
    with pytest.raises(WeightsError, match="conv1: Expected finite"):
        convert_entry(state_dict, "resnet18", entry)


@pytest.mark.parametrize("network", ["resnet50", "resnet50_voc", "vgg16_bn"])
def test_folding_against_batch_norm_written_out(network):
    """The equation of BatchNorm, channel by channel, on a 1×1 picture's worth of numbers."""
    entry = small(network)
    state_dict = state_of(entry)
    params = convert_entry(state_dict, network, entry)["params"]
    conv, norm, layer = ("conv1", "bn1", "conv1")
    if network.startswith("vgg"):
        conv, norm, layer = ("features.4", "features.5", "conv2_1")
    weight = state_dict[f"{conv}.weight"].astype(np.float64)
    if network.endswith("voc"):
        weight = weight[:, ::-1]
    patch = np.random.RandomState(0).standard_normal(weight.shape[1:])  # (I, H, W)
    answer = np.einsum("hwi,hwio->o", patch.transpose(1, 2, 0), params[layer]["kernel"])
    answer = answer + params[layer]["bias"]
    for channel in range(weight.shape[0]):
        z = (weight[channel] * patch).sum()
        if f"{conv}.bias" in state_dict:
            z += state_dict[f"{conv}.bias"][channel]
        gamma, beta, mean, variance = (
            float(state_dict[f"{norm}.{part}"][channel])
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        expected = gamma * (z - mean) / np.sqrt(variance + 1e-5) + beta
        assert answer[channel] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_transforms_element_by_element():
    random = np.random.RandomState(0)
    conv = random.standard_normal((5, 3, 2, 4))
    kernel = CONV.apply(conv, (2, 4, 3, 5))
    swapped = CONV_BGR.apply(conv, (2, 4, 3, 5))
    assert kernel[1, 3, 0, 4] == conv[4, 0, 1, 3] == swapped[1, 3, 2, 4]
    dense = random.standard_normal((5, 3))
    np.testing.assert_array_equal(DENSE.apply(dense, (3, 5)), dense.T)
    np.testing.assert_array_equal(DENSE.apply(dense[..., None, None], (3, 5)), dense.T)
    flat = random.standard_normal((5, 2 * 49))
    positions = random.standard_normal((7, 7, 2))
    np.testing.assert_allclose(
        positions.reshape(-1) @ dense_behind(7).apply(flat, (98, 5)),
        flat @ positions.transpose(2, 0, 1).reshape(-1),
    )


# Of each family one; the others have more of the same layers. Those of FULL_SIDES are converted
# whole in test_models_torchvision.py.
SIBLINGS = (*FULL_SIDES, "resnet34", "resnet101", "resnet152", "vgg11", "vgg13", "vgg19")
SIBLINGS += ("vgg11_bn", "vgg13_bn", "vgg19_bn", "squeezenet1_0", "resnet50_coco", "vgg16_coco")
PUBLISHED = [name for name in NETWORKS if name != "builtin"]


@pytest.mark.parametrize("name", slow_beside(PUBLISHED, *SIBLINGS))
def test_every_network_has_a_row_for_every_layer(name):
    entry = find_entry(name)
    rows = table(entry.module, entry.checkpoint)
    shapes = target_shapes(entry)
    layers = {layer_of(path): find_layer(layer_of(path), rows) for path in shapes}
    assert len({layer.name for layer in layers.values()}) == len(layers)


@pytest.mark.slow
def test_fine_tuned_networks_take_their_class_names(tmp_path):
    labels = ["cat", "dog", "fish"]
    entry = find_entry("resnet18", 3)
    state_dict = state_of(entry)
    save_file(state_dict, tmp_path / "in.safetensors")
    with pytest.raises(KeyMismatchError, match="pass their names as labels"):
        dmbp_jax.load("resnet18", weights=tmp_path / "in.safetensors")
    net = dmbp_jax.load("resnet18", weights=tmp_path / "in.safetensors", labels=labels)
    assert net(jnp.zeros((64, 64, 3))).shape == (3,)
    assert net.label_index("fish") == 2

    (tmp_path / "names.txt").write_text("cat\ndog\nfish\n")
    convert_file(
        tmp_path / "in.safetensors",
        tmp_path / "out.safetensors",
        "resnet18",
        tmp_path / "names.txt",
    )
    again = dmbp_jax.load("resnet18", weights=tmp_path / "out.safetensors")
    assert again.labels == ("cat", "dog", "fish")
    jax.tree.map(np.testing.assert_array_equal, again.variables, net.variables)


def test_converted_files_say_what_they_are(tmp_path):
    state_dict = state_of(find_entry("resnet18"))
    save_file(state_dict, tmp_path / "in.safetensors")
    convert_file(tmp_path / "in.safetensors", tmp_path / "out.safetensors", "resnet18")
    with pytest.raises(WeightsError, match="Expected weights of resnet34, got resnet18"):
        read_weights(tmp_path / "out.safetensors", "resnet34")
    with pytest.raises(WeightsError, match="got weights that are converted already"):
        convert_file(tmp_path / "out.safetensors", tmp_path / "again.safetensors", "resnet18")
    arrays = load_file(tmp_path / "out.safetensors")
    save_file(arrays, tmp_path / "anonymous.safetensors")
    with pytest.raises(KeyMismatchError, match="missing"):
        read_weights(tmp_path / "anonymous.safetensors", "resnet34")
    assert read_weights(tmp_path / "anonymous.safetensors", "resnet18")[0] == find_entry("resnet18")

    save_file(arrays, tmp_path / "odd.safetensors", {"classes": json.dumps({"a": 1})[:-1]})
    with pytest.raises(WeightsError, match="JSON"):
        read_weights(tmp_path / "odd.safetensors", "resnet18")


def test_writing_is_whole_or_not_at_all(tmp_path):
    numbers = np.arange(6, dtype=np.float32)
    variables = {"params": {"conv1": {"kernel": numbers.reshape(2, 3).T, "bias": numbers}}}
    path = tmp_path / "net.safetensors"
    save_variables(path, variables, {"network": "mine"})
    jax.tree.map(np.testing.assert_array_equal, load_variables(path), variables)
    before = path.read_bytes()
    with pytest.raises(WeightsError, match="written"):
        save_variables(tmp_path / "missing" / "net.safetensors", variables, {})
    with pytest.raises(TypeError):
        save_variables(path, variables, {"network": 3})  # pyrefly: ignore[bad-argument-type]
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.safetensors"]
    with pytest.raises(InputError, match="another file"):
        convert_file(path, tmp_path / "." / "net.safetensors", "resnet18")
    with pytest.raises(WeightsError):
        load_variables(tmp_path / "missing.safetensors")
    (tmp_path / "text.safetensors").write_text("nothing of the kind")
    with pytest.raises(CorruptCheckpointError):
        load_variables(tmp_path / "text.safetensors")


def test_bfloat16_safetensors(tmp_path):
    entry = find_entry("resnet18", 3)
    state_dict = state_of(entry)
    half = {key: jnp.asarray(value, jnp.bfloat16) for key, value in state_dict.items()}
    from safetensors.flax import save_file as save_jax

    save_jax(half, tmp_path / "half.safetensors")
    _, variables, _ = read_weights(tmp_path / "half.safetensors", "resnet18", ["a", "b", "c"])
    kernel = variables["params"]["fc"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_allclose(kernel, state_dict["fc.weight"].T, atol=1e-3)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F4"])
def test_safetensors_of_few_bits(tmp_path, dtype):
    tensor = {"dtype": dtype, "shape": [2 if dtype == "F4" else 1], "data_offsets": [0, 1]}
    head = json.dumps({"a": tensor}).encode()
    (tmp_path / "few.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + b"x")
    with pytest.raises(WeightsError, match="Expected dtypes NumPy knows"):
        read_checkpoint(tmp_path / "few.safetensors")


def test_an_array_and_a_folder_of_one_name(tmp_path):
    save_file({"a": np.zeros(1), "a/b": np.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(CorruptCheckpointError, match="Expected names of arrays"):
        load_variables(tmp_path / "x.safetensors")
