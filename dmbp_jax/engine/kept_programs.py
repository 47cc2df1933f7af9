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

from dmbp_jax.files import replacing
from dmbp_jax.graph.model import is_traced
from dmbp_jax.graph.tracing import settings_of_traces

Program = Callable[[Any, Any], Any]
_DIGEST = 32  # bytes of the SHA-256 before a program in its file


def run(program: Program, explainer: Any, rows: Any) -> Any:
    """`program(explainer, rows)`, without tracing it where a process before this one did.

    Args:
      program: a jitted function of an explainer and its rows.
      explainer: has an attribute `identity` if its program can be kept: a text that, with the
        shapes of its arrays, says everything that the program depends on.
      rows: a pytree of arrays.
    """
    folder = _folder()
    identity = getattr(explainer, "identity", None) if folder else None
    if folder is None or identity is None:
        return program(explainer, rows)
    leaves, tree = jax.tree.flatten((explainer, rows))
    platform = _platform(leaves)
    if platform is None:
        return program(explainer, rows)
    shapes = tuple((leaf.shape, canonicalize_dtype(leaf.dtype)) for leaf in leaves)
    content = f"{identity}\n{jax.tree.structure(rows)}\n{platform}"
    call = _kept(program, tree, shapes, content, platform, folder, settings_of_traces())
    return program(explainer, rows) if call is None else call(*leaves)


def _folder() -> Path | None:
    """None where nothing is kept: without a local folder, without compiling, or on a mesh."""
    config: Any = jax.config
    folder = config.jax_compilation_cache_dir
    if not config.jax_enable_compilation_cache or not folder or "://" in str(folder):
        return None
    if config.jax_disable_jit or not jax.sharding.get_abstract_mesh().empty:
        return None
    return Path(folder) / "dmbp_jax"


def _platform(leaves: list[Any]) -> str | None:
    """Of the one device that has all arrays; None where they are no ordinary arrays of one."""
    if is_traced(leaves):
        return None
    devices: set[Any] = set()
    for leaf in leaves:
        if not isinstance(leaf, (jax.Array, np.ndarray)):
            return None
        if jnp.issubdtype(leaf.dtype, jax.dtypes.extended) or getattr(leaf, "weak_type", False):
            return None
        if isinstance(leaf, jax.Array):
            devices |= leaf.devices()
    return devices.pop().platform if len(devices) == 1 else None


@lru_cache(maxsize=16)
def _kept(
    program: Program,
    tree: Any,
    shapes: tuple[Any, ...],
    content: str,
    platform: str,
    folder: Path,
    settings: tuple[Any, ...],
) -> Callable[..., Any] | None:
    """The compiled function of the leaves; None where it cannot be kept."""
    versions = (jax.__version__, jaxlib.__version__, _source())
    found_by = repr((content, shapes, settings, versions))
    path = folder / f"{sha256(found_by.encode()).hexdigest()}.jax"
    kept = _read(path)
    if kept is None:
        kept = _export(program, tree, shapes, platform)
        if kept is None:
            return None
        _write(path, kept)
    return jax.jit(kept.call)


def _export(
    program: Program, tree: Any, shapes: tuple[Any, ...], platform: str
) -> export.Exported | None:
    def explain(*leaves: jax.Array) -> Any:
        return program(*jax.tree.unflatten(tree, leaves))

    arguments = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    function = jax.jit(explain)
    function.trace(*arguments)  # whatever is wrong with the network is raised here
    try:
        return export.export(function, platforms=[platform])(*arguments)
    except ValueError:  # an operation of which JAX does not promise that it can be read again
        return None


def _read(path: Path) -> export.Exported | None:
    """None where the file is absent or damaged; it is written again then."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, program = data[:_DIGEST], data[_DIGEST:]
    return export.deserialize(bytearray(program)) if sha256(program).digest() == digest else None


def _write(path: Path, kept: export.Exported) -> None:
    program = bytes(kept.serialize())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_bytes(sha256(program).digest() + program)
    except OSError:  # a full disk, a folder of somebody else: as JAX's own cache, it is not needed
        pass


@lru_cache(maxsize=1)
def _source() -> str:
    """SHA-256 of the code of this package."""
    root, digest = Path(__file__).parents[1], sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
