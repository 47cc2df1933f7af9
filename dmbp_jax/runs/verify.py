"""Comparing what is stored with its commit records; a shard that differs is opened again."""

from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

from dmbp_jax.errors import StoreError
from dmbp_jax.runs import manifest, records
from dmbp_jax.runs.store import Store


class Problem(NamedTuple):
    """A shard whose objects are not those that were committed."""

    shard: int
    reason: str


def verify(store: Store) -> list[Problem]:
    """Read every object of every committed shard and compare its size and SHA-256.

    Finds maps that were damaged, lost, or overwritten by a second writer. Changes nothing.

    Raises:
      StoreError: no store of a run, or it cannot be read.
    """
    fingerprint = manifest.read_manifest(store)["fingerprint"]
    found = (_problem(store, fingerprint, k) for k in sorted(records.committed(store)))
    return [problem for problem in found if problem is not None]


def reopen(store: Store, problems: Iterable[Problem]) -> None:
    """Withdraw the records of shards, so that the run does them again."""
    for problem in problems:
        store.delete(records.key_of(problem.shard))


def _problem(store: Store, fingerprint: str, shard: int) -> Problem | None:
    try:
        (record,) = records.read_records(store, [shard])
    except StoreError as error:
        return Problem(shard, str(error))
    if record is None:
        return None
    if record.fingerprint != fingerprint:
        return Problem(shard, f"is of another run ({record.fingerprint})")
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
