"""Where the results of a large run lie: one key-value store on a disk, S3 or Google Cloud.

Every object is written whole or not at all; `put_new` decides between two writers.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

import numpy as np
import tensorstore as ts

from dmbp_jax.errors import InputError, StoreError, StoreFullError, StoreReadOnlyError

_FULL = ("No space left", "ENOSPC", "Disk quota exceeded", "os_error_code='28'")
_LOCKS = "DMBP_STORE_LOCKS"  # "none" for file systems without locks
_READ_ONLY = (
    "Read-only file system",
    "Permission denied",
    "PERMISSION_DENIED",
    "AccessDenied",
    "os_error_code='30'",
)


class Store:
    """Objects by key, below one address.

    Args:
      url: path of a folder, in which "~" is the home folder, or `file://`, `s3://bucket/path`,
        `gs://bucket/path`. S3 takes its credentials and region as other tools do;
        `AWS_ENDPOINT_URL` names another S3-compatible server.

    A store opens in no time and writes nothing until it is asked to. It can be pickled.

    Raises:
      InputError: another kind of URL, or a path that is not UTF-8.

    Example:
      >>> import tempfile
      >>> store = Store(tempfile.mkdtemp())
      >>> store.put_new("a", b"first"), store.put_new("a", b"second"), store.get("a")
      (True, False, b'first')
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.url = os.fspath(url)
        self.spec = _spec(self.url)
        self._kv = self._try(lambda: ts.KvStore.open(self.spec).result())

    def __reduce__(self) -> Any:
        return Store, (self.url,)

    @property
    def folder(self) -> Path | None:
        """The folder of a store on a disk, None for a bucket."""
        return Path(self.spec["path"]) if self.spec["driver"] == "file" else None

    @property
    def name(self) -> str:
        """The last part of its address, for titles."""
        place = self.spec["path"].rstrip("/") or self.spec.get("bucket", "/")
        return place.rpartition("/")[2] or place

    def get(self, key: str) -> bytes | None:
        """The object, or None.

        Raises:
          StoreError: it cannot be read.
        """
        return self.get_many([key])[0]

    def get_many(self, keys: list[str]) -> list[bytes | None]:
        """Several objects, read at the same time."""
        reads = [self._kv.read(key) for key in keys]
        found = self._try(lambda: [read.result() for read in reads])
        return [one.value if one.state == "value" else None for one in found]

    def put(self, key: str, data: bytes) -> None:
        """Write an object in the place of the one that may be there."""
        self.put_many({key: data})

    def put_many(self, objects: Mapping[str, bytes]) -> None:
        """Write several objects at the same time, and wait for all."""
        writes = [self._kv.write(key, data) for key, data in objects.items()]
        self._try(lambda: [write.result() for write in writes])

    def put_new(self, key: str, data: bytes) -> bool:
        """Write an object unless one is there: of several writers one is told True.

        Raises:
          StoreFullError, StoreReadOnlyError, StoreError: it cannot be written.
        """
        found = self._try(lambda: self._kv.read(key).result())
        if found.state == "value":
            return False
        missing = found.stamp.generation
        written = self._try(lambda: self._kv.write(key, data, if_equal=missing).result())
        return bool(written.generation)

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if it is not there."""
        self._try(lambda: self._kv.write(key, None).result())

    def keys(self, prefix: str = "") -> list[str]:
        """The keys that begin with `prefix`, sorted."""
        after = prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else ""
        span = ts.KvStore.KeyRange(prefix, after)
        return sorted(os.fsdecode(key) for key in self._try(lambda: self._kv.list(span).result()))

    def array(self, name: str) -> ts.TensorStore:
        """The Zarr array called `name`, opened for `read_rows`."""
        spec = {"driver": "zarr3", "kvstore": self.spec | {"path": f"{self.spec['path']}{name}/"}}
        return self._try(lambda: ts.open(spec, read=True, open=True).result())

    def read_rows(self, arrays: Sequence[ts.TensorStore], rows: int | slice) -> list[np.ndarray]:
        """The same rows of several arrays, read at the same time."""
        reads = [array[rows].read() for array in arrays]
        return self._try(lambda: [np.asarray(read.result()) for read in reads])

    def _try(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except (ValueError, OSError, RuntimeError) as error:  # TensorStore's are plain ones
            raise _typed(self.url, error) from error


def _typed(url: str, error: Exception) -> StoreError:
    """An error of TensorStore as one of ours, which says what to do."""
    text = str(error)
    if any(sign in text for sign in _FULL):
        return StoreFullError(f"{url}: no space is left; free some.")
    if any(sign in text for sign in _READ_ONLY):
        return StoreReadOnlyError(f"{url}: may not be written: {text}")
    if "No locks available" in text:
        text = (
            f"its file system has no locks. Choose another place, or set {_LOCKS}=none; two "
            "writers may then both be told that they were first, and dmbp verify finds where they "
            "differ."
        )
    return StoreError(f"{url}: {text}")


def _spec(url: str) -> dict[str, Any]:
    """TensorStore's description of the key-value store."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "file":
        path = url2pathname(rest.removeprefix("localhost")) if separator else url
        if not path:
            raise InputError(
                "store: Expected a path, s3://BUCKET/PATH or gs://…, got an empty one."
            )
        # TensorStore takes no "..".
        place = Path(os.path.realpath(os.path.expanduser(path))).as_posix()
        try:
            place.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"store: Expected a path in UTF-8, got {url!r}.") from error
        local = {"driver": "file", "path": f"{place.rstrip('/')}/"}
        mode = os.environ.get(_LOCKS)
        return local | ({"file_io_locking": {"mode": mode}} if mode else {})
    bucket, _, path = rest.strip("/").partition("/")
    path = f"{path}/" if path else ""
    if not bucket or scheme not in ("s3", "gs"):
        raise InputError(f"store: Expected a path, s3://BUCKET/PATH or gs://…, got {url!r}.")
    if scheme == "gs":
        return {"driver": "gcs", "bucket": bucket, "path": path}
    spec: dict[str, Any] = {"driver": "s3", "bucket": bucket, "path": path}
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        spec["endpoint"] = endpoint
    if region := os.environ.get("AWS_REGION", os.environ.get("AWS_DEFAULT_REGION")):
        spec["aws_region"] = region
    return spec
