"""Fetching a published checkpoint once: the hash decides, a rename puts it there.

A file under its final name in the cache is whole and checked, by the hex digits that its row of the
registry knows; half a download never gets that name.
"""

import hashlib
import importlib.util
import os
import sys
from pathlib import Path

from tqdm import tqdm

from dmbp_jax.errors import DownloadError
from dmbp_jax.files import replacing
from dmbp_jax.networks.registry import Checkpoint

_CHUNK = 2**16  # bytes between two updates of the progress bar
_TIMEOUT = 30  # seconds without an answer


def cache_directory() -> Path:
    """Where downloads are kept.

    `$DMBP_HOME`, or `$XDG_CACHE_HOME/dmbp-jax`, or `~/.cache/dmbp-jax`.
    """
    if home := os.environ.get("DMBP_HOME"):
        return Path(home).expanduser()
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache).expanduser() / "dmbp-jax"
    return Path.home() / ".cache" / "dmbp-jax"


def fetch(checkpoint: Checkpoint) -> Path:
    """Path of a checkpoint in the cache, downloaded if it is not there yet.

    A file counts as right if its SHA-256 begins with the digits of `checkpoint.sha256`: all 64, or
    the 8 of its name. A file that is there already is checked, too; a wrong one is replaced.
    A checkpoint inside a Python package is read where the package is installed; none of the
    package's code runs. The message of an error says what to do by hand.
    """
    target = cache_directory() / checkpoint.file
    if checkpoint.package is not None:
        return _installed(checkpoint.package, checkpoint, target)
    by_hand = (
        f"Fetch {checkpoint.url} by hand and put it at {target} (checked by {checkpoint.check})."
    )
    try:
        if target.is_file() and sha256(target).startswith(checkpoint.sha256):
            return target
        target.unlink(missing_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as part:
            _download(checkpoint, part)
            digest = sha256(part)
            if not digest.startswith(checkpoint.sha256):
                whole = len(checkpoint.sha256) == len(digest)
                raise DownloadError(
                    f"{checkpoint.file}: Expected SHA-256 {'' if whole else 'beginning with '}"
                    f"{checkpoint.sha256}, got {digest}; the download was deleted. {by_hand}"
                )
    except DownloadError:
        raise
    except OSError as error:
        reason = " ".join(str(error).split())
        raise DownloadError(
            f"{checkpoint.file}: cannot be downloaded ({reason}). {by_hand}"
        ) from error
    return target


def _download(checkpoint: Checkpoint, path: Path) -> None:
    """Write what its address holds, with a bar."""
    import requests  # takes 0.1 s, which only a download needs

    try:
        with requests.get(checkpoint.url, stream=True, timeout=_TIMEOUT) as answer:
            answer.raise_for_status()
            print(f"downloading {checkpoint.url}, checked by {checkpoint.check}", file=sys.stderr)
            size = int(answer.headers.get("Content-Length", 0)) or None
            with path.open("wb") as file, tqdm(total=size, unit="B", unit_scale=True) as bar:
                for piece in answer.iter_content(_CHUNK):
                    bar.update(file.write(piece))
    except requests.Timeout as error:
        raise OSError(f"no answer within {_TIMEOUT} seconds") from error
    except requests.ConnectionError as error:
        raise OSError("no connection") from error


def _installed(package: str, checkpoint: Checkpoint, target: Path) -> Path:
    """The file in the cache, or else in an installed package."""
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations or ()) if spec else ()
    for path in (target, *(Path(folder) / checkpoint.url for folder in folders)):
        if path.is_file() and sha256(path).startswith(checkpoint.sha256):
            return path
    raise DownloadError(
        f"{checkpoint.file}: has no address of its own. Install the Python package {package}, "
        f"which holds it, or put the file at {target} (checked by {checkpoint.check})."
    )


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
