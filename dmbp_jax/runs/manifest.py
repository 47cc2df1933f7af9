"""The manifest of a store: whose results these are, so that no other run goes on with them."""

import json
from hashlib import sha256
from typing import Any

from dmbp_jax.errors import ResumeError, StoreError
from dmbp_jax.files import read_json
from dmbp_jax.runs import arrays
from dmbp_jax.runs.plan import Plan
from dmbp_jax.runs.store import Store

KEY = "manifest.json"
INPUTS = "inputs.jsonl"
_LONGEST = 200  # characters of a value in a message
FORMAT = 1  # raised when the layout of a store changes


def open_manifest(store: Store, plan: Plan) -> str:
    """Begin a run in an empty store, or go on with the same run; the fingerprint of the run.

    Raises:
      ResumeError: the store holds another run, or things that are no run at all.
      StoreError: it cannot be read or written.
    """
    # Of JAX, which no reader needs.
    from dmbp_jax.runs.configuration import configure
    from dmbp_jax.runs.fingerprint import fingerprint

    own = {"format": FORMAT, **configure(plan)}
    objects = arrays.group(array_layout(plan))
    about = {
        "root": str(plan.inputs.root),
        "labels": list(plan.network.labels),
        "metadata": {key: sha256(data).hexdigest() for key, data in objects.items()},
    }
    manifest = {"fingerprint": fingerprint(own), "configuration": own, "about": about}
    _refuse_strange(store)
    if not store.put_new(KEY, arrays.encode(manifest)):
        advice = "Choose another store, or go on with the former settings."
        check_same(store, read_manifest(store)["configuration"], own, advice)
    store.put_many({key: data for key, data in objects.items() if not store.keys(key)})
    if not store.keys(INPUTS):
        store.put(INPUTS, plan.inputs.lines())
    return manifest["fingerprint"]


def read_manifest(store: Store) -> dict[str, Any]:
    """The manifest."""
    data = store.get(KEY)
    if data is None:
        raise StoreError(f"{store.url}: Expected a store of dmbp run, got none: no {KEY}.")
    try:
        manifest = read_json(data)
        configuration, about = manifest["configuration"], manifest["about"]
        if configuration["format"] != FORMAT:
            raise ValueError(f"format {configuration['format']}")
        digest = sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()
        if manifest["fingerprint"] != digest[:16] or not {"root", "labels"} <= about.keys():
            raise ValueError("it is damaged")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise StoreError(f"{store.url}: Expected a {KEY} of format {FORMAT}: {error}") from error
    return manifest


def array_layout(plan: Plan) -> dict[str, dict[str, Any]]:
    """Zarr metadata of every array, by name."""
    rows = len(plan.inputs)
    layout = {}
    for name in plan.save:
        shape = plan.map_shape(name)
        layout[name] = arrays.metadata(rows, shape, plan.dtype, plan.shard_size)
        if plan.dtype == "float16":
            layout[name + arrays.SCALE] = arrays.metadata(rows, (), "float32", plan.shard_size)
    return layout


def _refuse_strange(store: Store) -> None:
    """Leave alone what is not ours; the lock of a writer that was killed is no key."""
    if store.folder is not None and store.folder.is_file():
        raise ResumeError(f"{store.url}: Expected a folder, got a file.")
    if store.get(KEY) is not None or not (names := store.keys()):
        return
    # Asked again: another writer may have begun the run meanwhile, its manifest first of all.
    if store.get(KEY) is None:
        raise ResumeError(
            f"{store.url}: Expected an empty folder or a store of dmbp run, got {names[0]} in it."
        )


def check_same(store: Store, stored: Any, own: Any, advice: str) -> None:
    """Refuse to go on with the results of another configuration; of runs and of evaluations."""
    if found := difference(stored, own):
        raise ResumeError(
            f"{store.url}: Expected the settings of the results that are there, got another "
            f"{found}. {advice}"
        )


def difference(stored: Any, own: Any, name: str = "") -> str:
    """The first field that differs, with both values; "" if none does."""
    if stored == own:
        return ""
    if isinstance(stored, dict) and isinstance(own, dict):
        for key in dict.fromkeys([*own, *stored]):
            inner = f"{name}.{key}" if name else str(key)
            if found := difference(stored.get(key), own.get(key), inner):
                return found
    return f"{name}: stored {_short(stored)}, now {_short(own)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
