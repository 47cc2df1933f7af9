"""Commit records: a shard is done when its record is there, and a record is made only once.

A record is JSON Lines: a head with the size and SHA-256 of every map object and of the record
itself, then the rows. What is stored is compared with it; a shard that differs is opened again.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

from dmbp_jax.errors import StoreError
from dmbp_jax.files import read_json, read_json_lines, write_json
from dmbp_jax.runs.inputs import Inputs
from dmbp_jax.runs.store import Store

PREFIX = "commits/"
_KEY = re.compile(r"commits/(\d{8,})\.jsonl")
COLUMNS = (
    "file",
    "sha256",
    "label",
    "y",
    "y_positive",
    "y_negative",
    "y_nuisance",
    "probability",
    "status",
    "error",
)
OK, FAILED, MISSING = "ok", "failed", "missing"

Row = dict[str, Any]


def new_row(inputs: Inputs, row: int, status: str, error: str | None = None) -> Row:
    """What is known of a row before it is explained."""
    known = {"file": inputs.files[row], "label": inputs.labels[row]}
    return dict.fromkeys(COLUMNS) | known | {"status": status, "error": error}


@dataclass(frozen=True)
class Part:
    """What a worker made of one shard: encoded map objects by key, and rows. In no store yet."""

    shard: int
    objects: Mapping[str, bytes]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Record:
    """A commit record that was read."""

    shard: int
    objects: Mapping[str, Mapping[str, Any]]
    rows: tuple[Row, ...]


def key_of(shard: int) -> str:
    """Where the record of a shard lies."""
    return f"{PREFIX}{shard:08d}.jsonl"


def commit(store: Store, fingerprint: str, part: Part) -> bool:
    """Store a shard: its maps first, then the record, unless another writer was faster.

    Returns:
      Whether this writer's record is the one that counts. Maps of a writer that came second may
      lie over those of the first; they are the same bytes on equal machines, and `verify` finds
      them where they are not.
    """
    if store.get(key_of(part.shard)) is not None:
        return False
    store.put_many(part.objects)
    return store.put_new(key_of(part.shard), _encode(fingerprint, part))


def committed(store: Store) -> set[int]:
    """The shards that are done; lists names, reads nothing."""
    return {int(found[1]) for found in map(_KEY.fullmatch, store.keys(PREFIX)) if found}


def unfinished(store: Store, shards: Iterable[int]) -> Iterator[int]:
    """Those of some shards that are not done, asking the store again before each."""
    done = committed(store)
    for shard in shards:
        if shard not in done and store.get(key_of(shard)) is None:
            yield shard


def read_records(store: Store, fingerprint: str, shards: list[int]) -> list[Record | None]:
    """The records of shards, None where there is none; of one run and no other."""
    found = store.get_many([key_of(shard) for shard in shards])
    return [
        None if data is None else _decode(store, fingerprint, shard, data)
        for shard, data in zip(shards, found, strict=True)
    ]


def describe_objects(part: Part) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every map object, as its record has them."""
    return {
        key: {"size": len(data), "sha256": sha256(data).hexdigest()}
        for key, data in sorted(part.objects.items())
    }


def _encode(fingerprint: str, part: Part) -> bytes:
    rows = b"".join(map(write_json, part.rows))
    head = {"shard": part.shard, "fingerprint": fingerprint, "objects": describe_objects(part)}
    return write_json(head | {"record": _digest(head, rows)}) + rows


def _digest(head: dict[str, Any], rows: bytes) -> str:
    """SHA-256 of a record, whose head then takes it in."""
    return sha256(write_json(head) + rows).hexdigest()


def _decode(store: Store, fingerprint: str, shard: int, data: bytes) -> Record:
    head, _, lines = data.partition(b"\n")
    try:
        values = read_json(head)
        digest = values.pop("record", None)
        if digest not in (None, _digest(values, lines)):  # None in those of dmbp-jax 0.2
            raise ValueError("it is not what was committed")
        own = values["fingerprint"] == fingerprint
        record = Record(shard, values["objects"], tuple(read_json_lines(lines)))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{store.url}: {key_of(shard)} is damaged: {error}. dmbp verify opens its shard again."
        ) from error
    if not own:
        raise StoreError(
            f"{store.url}: {key_of(shard)} is of another run. dmbp verify opens its shard again."
        )
    return record


class Problem(NamedTuple):
    """A shard whose objects are not those that were committed."""

    shard: int
    reason: str


def find_problem(store: Store, fingerprint: str, shard: int) -> Problem | None:
    """Compare size and SHA-256 of every object of a shard with its record."""
    try:
        (record,) = read_records(store, fingerprint, [shard])
    except StoreError as error:
        return Problem(shard, str(error))
    if record is None:
        return None
    keys = list(record.objects)
    for key, data in zip(keys, store.get_many(keys), strict=True):
        if data is None:
            return Problem(shard, f"{key} is missing")
        expected = record.objects[key]
        if len(data) != expected["size"]:
            return Problem(shard, f"{key} has {len(data)} bytes, expected {expected['size']}")
        if sha256(data).hexdigest() != expected["sha256"]:
            return Problem(shard, f"{key} holds other bytes than were committed")
    return None


def reopen(store: Store, problems: Iterable[Problem]) -> None:
    """Withdraw the records of shards, so that the run does them again."""
    for problem in problems:
        store.delete(key_of(problem.shard))
