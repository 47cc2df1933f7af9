"""Programs of explainers, kept beside JAX's compilation cache: later processes do not trace them.

JAX keeps what XLA compiled, but finds it by the program, which has to be traced first. That is most
of a first call from the cache. Where the cache has a folder, the traced program is kept there too,
found by the content of the network and the settings (`graph/identity.py`) and of this package.
"""

from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import export
from jax.dtypes import canonicalize_dtype

from dmbp_jax.engine.compiling import compiled, compiler_options
from dmbp_jax.files import replacing
from dmbp_jax.graph.model import is_traced
from dmbp_jax.graph.tracing import settings_of_traces

Program = Callable[[Any, Any], Any]
_DIGEST = 32  # bytes of the SHA-256 before a program in its file


def run(program: Program, explainer: Any, rows: Any) -> Any:
    """`program(explainer, rows)`, without tracing it where a process before this one did.

    Args:
      program: a function of an explainer and its rows.
      explainer: has an attribute `identity` if its program can be kept: a text that, with the
        shapes of its arrays, says everything that the program depends on.
      rows: a pytree of arrays.
    """
    folder = _folder()
    identity = getattr(explainer, "identity", None) if folder else None
    if folder is None or identity is None:
        return compiled(program)(explainer, rows)
    leaves, tree = jax.tree.flatten((explainer, rows))
    platform, shapes = _platform(leaves), _shapes(leaves)
    if platform is None or shapes is None:
        return compiled(program)(explainer, rows)
    structure = str(jax.tree.structure(rows))
    found_by = (identity, structure, platform, shapes, _settings(), folder)
    if (program, found_by) not in _known:
        _known[program, found_by] = _find(program, tree, found_by)
    call = _known[program, found_by]
    return compiled(program)(explainer, rows) if call is None else call(*leaves)


def _folder() -> Path | None:
    """None where nothing is kept: without a local folder or the code of this package, without
    compiling, on a mesh, or where JAX looks for the operation that returned a NaN.
    """
    config: Any = jax.config
    folder = config.jax_compilation_cache_dir
    if not config.jax_enable_compilation_cache or not folder or "://" in str(folder):
        return None
    if config.jax_disable_jit or config.jax_debug_nans or config.jax_debug_infs:
        return None
    if _SOURCE is None or not jax.sharding.get_abstract_mesh().empty:
        return None
    return Path(folder) / "dmbp_jax"


def _settings() -> tuple[Any, ...]:
    config: Any = jax.config
    return (*settings_of_traces(), config.jax_threefry_partitionable)


def _platform(leaves: list[Any]) -> str | None:
    """Of the one device that has all arrays; None where they are no ordinary arrays of one.

    JAX commits the results of an exported program to its device. Where that is a difference, with
    several devices and arrays that are not committed themselves, nothing is kept.
    """
    if is_traced(leaves):
        return None
    devices: set[Any] = set()
    committed = False
    for leaf in leaves:
        if isinstance(leaf, jax.Array):
            devices |= leaf.devices()
            committed |= leaf.committed
        elif not isinstance(leaf, np.ndarray):
            return None
    if len(devices) != 1:
        return None
    platform = devices.pop().platform
    return platform if committed or len(jax.local_devices(backend=platform)) == 1 else None


def _shapes(leaves: list[Any]) -> tuple[Any, ...] | None:
    """Shape and dtype of every array; None where one is weakly typed or holds random keys."""
    if any(getattr(leaf, "weak_type", False) for leaf in leaves):
        return None
    x64 = jax.config.jax_enable_x64  # pyrefly: ignore[missing-attribute]
    shapes = tuple((leaf.shape, _plain(leaf.dtype, x64)) for leaf in leaves)
    return None if any(dtype is None for _, dtype in shapes) else shapes


@lru_cache(maxsize=256)
def _plain(dtype: Any, x64: bool) -> Any:
    """The dtype as `jax.jit` takes it, which depends on x64."""
    return None if jnp.issubdtype(dtype, jax.dtypes.extended) else canonicalize_dtype(dtype)


def _find(program: Program, tree: Any, found_by: tuple[Any, ...]) -> Callable[..., Any] | None:
    """The compiled function of the leaves; None where it cannot be kept."""
    *content, platform, shapes, settings, folder = found_by
    versions = (jax.__version__, jaxlib.__version__, _SOURCE)
    text = repr((content, platform, shapes, settings, versions))
    path = folder / f"{sha256(text.encode()).hexdigest()}.jax"
    kept = _read(path)
    if kept is None:
        kept = _export(program, tree, shapes, platform)
        if kept is None:
            return None
        _write(path, kept)
        kept = export.deserialize(bytearray(kept))
    return jax.jit(kept.call, compiler_options=compiler_options(platform))


def _export(program: Program, tree: Any, shapes: Any, platform: str) -> bytes | None:
    """A program as bytes; None where JAX does not promise that it can be read again."""

    def explain(*leaves: jax.Array) -> Any:
        return program(*jax.tree.unflatten(tree, leaves))

    arguments = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    function = jax.jit(explain)
    function.trace(*arguments)  # whatever is wrong with the network is raised here
    try:
        kept = export.export(function, platforms=[platform])(*arguments)
        # A network that names several devices itself cannot be called with arrays of one.
        return bytes(kept.serialize()) if kept.nr_devices == 1 else None
    except (ValueError, TypeError, KeyError, NotImplementedError):
        return None


def _read(path: Path) -> export.Exported | None:
    """None where the file is absent or damaged; it is written again then."""
    try:
        data = path.read_bytes()
        digest, program = data[:_DIGEST], data[_DIGEST:]
        if sha256(program).digest() == digest:
            return export.deserialize(bytearray(program))
    except Exception:  # not there, or not a program of this JAX
        pass
    return None


def _write(path: Path, program: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_bytes(sha256(program).digest() + program)
    except OSError:  # a full disk, a folder of somebody else: as JAX's own cache, it is not needed
        pass


def _hash_source() -> str | None:
    """SHA-256 of the code of this package; None where there is none to read."""
    root, digest = Path(__file__).parents[1], sha256()
    paths = sorted(root.rglob("*.py"))
    try:
        for path in paths:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    except OSError:
        return None
    return digest.hexdigest() if paths else None


# When it is imported: a process goes on with this code when the files change below it.
_SOURCE = _hash_source()
_known: dict[Any, Callable[..., Any] | None] = {}  # as jax.jit remembers what it compiled
