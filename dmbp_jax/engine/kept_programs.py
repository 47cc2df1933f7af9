"""Programs of explainers, kept beside JAX's compilation cache: later processes do not trace them.

JAX keeps what XLA compiled, but finds it by the program, which has to be traced first: most of a
first call from the cache. Where the cache has a folder, the traced programs are kept there too and
found by the content of the network and the settings (`graph/identity.py`) and of this package.
Those that were used last stay, up to a size and an age.
"""

import os
import time
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import export
from jax.dtypes import canonicalize_dtype

from dmbp_jax.files import replacing
from dmbp_jax.graph.model import is_traced
from dmbp_jax.graph.tracing import settings_of_traces

MOST_BYTES = 2**28  # of all kept programs; those of ResNet50 for one shape take 1 MiB
OLDEST = 90 * 24 * 3600  # seconds since one was used


class Place(NamedTuple):
    """What programs are found by: equal places hold programs that compute the same."""

    identity: str
    structure: str
    platform: str
    shapes: tuple[Any, ...]
    settings: tuple[Any, ...]
    folder: Path

    @property
    def path(self) -> Path:
        """The file of the programs, for these versions of JAX and of the package."""
        text = repr((*self[:-1], jax.__version__, jaxlib.__version__, _SOURCE))
        return self.folder / f"{sha256(text.encode()).hexdigest()}.jax"


def find_place(explainer: Any, rows: Any) -> Place | None:
    """Where the programs of an explainer are kept; None where they cannot be.

    They can if it has an attribute `identity`: a text that, with the shapes of its arrays, says
    everything that they depend on.
    """
    folder = _folder()
    identity = getattr(explainer, "identity", None) if folder else None
    if folder is None or identity is None:
        return None
    leaves = jax.tree.leaves((explainer, rows))
    platform, shapes = _platform(leaves), _shapes(leaves)
    if platform is None or shapes is None:
        return None
    return Place(
        identity, str(jax.tree.structure(rows)), platform, shapes, settings_of_traces(), folder
    )


def export_program(program: Any, arguments: Any) -> export.Exported | None:
    """A jitted function as one that can be kept; None where JAX does not promise to read it."""
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), arguments)
    program.trace(*shapes)  # whatever is wrong with the network is raised here
    try:
        made = export.export(program)(*shapes)
        # A network that names several devices itself cannot be called with arrays of one.
        return export.deserialize(made.serialize()) if made.nr_devices == 1 else None
    except (ValueError, TypeError, KeyError, NotImplementedError):
        return None


def read(place: Place) -> list[export.Exported] | None:
    """The programs at a place; None where they are absent or damaged: they are written again."""
    try:
        with zipfile.ZipFile(place.path) as kept:  # which compares checksums
            programs = [export.deserialize(bytearray(kept.read(one))) for one in kept.namelist()]
        os.utime(place.path)  # used now
    except Exception:  # not there, or not programs of this JAX
        return None
    return programs


def write(place: Place, programs: Sequence[export.Exported]) -> None:
    """Keep programs; those that were not used for longest go where there are too many."""
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
        with replacing(place.path) as part, zipfile.ZipFile(part, "w") as kept:
            for number, program in enumerate(programs):
                kept.writestr(str(number), program.serialize())
        _prune(place.folder)
    except OSError:  # a full disk, a folder of somebody else: as JAX's own cache, it is not needed
        pass


def _prune(folder: Path) -> None:
    found = [(path.stat(), path) for path in folder.glob("*.jax")]
    left = MOST_BYTES
    for status, path in sorted(found, key=lambda one: one[0].st_mtime, reverse=True):
        left -= status.st_size
        if left < 0 or status.st_mtime < time.time() - OLDEST:
            path.unlink(missing_ok=True)


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


def _platform(leaves: list[Any]) -> str | None:
    """The platform of the one device that has all arrays; None for any other arrays.

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
