"""Which shards a process takes: its own stripe first, then whatever nobody has done.

Processes of a job array need not know of each other; the store tells what is done.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping

from dmbp_jax.errors import InputError


def stripe(shards: int, i: int, n: int) -> list[int]:
    """The order in which process i of n takes shards.

    Its own, every n-th from i; then those of the others, from the last backwards, since their
    owners come from the front.

    Example:
      >>> stripe(7, 1, 3)
      [1, 4, 6, 5, 3, 2, 0]
    """
    return [*range(i, shards, n), *(k for k in reversed(range(shards)) if k % n != i)]


def claim(order: list[int], done: set[int], is_done: Callable[[int], bool]) -> Iterator[int]:
    """The shards of `order` to do, asking the store again before each."""
    for shard in order:
        if shard not in done and not is_done(shard):
            yield shard


def parse_stripe(text: str) -> tuple[int, int]:
    """`i/n` with 0 <= i < n.

    Raises:
      InputError: anything else.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    i, n = (int(match[1]), int(match[2])) if match else (0, 0)
    if not i < n:
        raise InputError(f"--shards: Expected i/n with 0 <= i < n, such as 0/4, got {text!r}.")
    return i, n


def find_stripe(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """The stripe of this process by the variables of Slurm or Kubernetes; (0, 1) without them.

    Slurm sets `SLURM_ARRAY_TASK_ID`, `_MIN` and `_COUNT`. Kubernetes sets
    `JOB_COMPLETION_INDEX` only, so the job has to set `JOB_COMPLETIONS` to the number of its pods.

    Raises:
      InputError: the variables contradict each other, or the number is missing.
    """
    if task := environment.get("SLURM_ARRAY_TASK_ID"):
        first = int(environment.get("SLURM_ARRAY_TASK_MIN", "0"))
        step = int(environment.get("SLURM_ARRAY_TASK_STEP", "1"))
        count = environment.get("SLURM_ARRAY_TASK_COUNT", "1")
        return parse_stripe(f"{(int(task) - first) // step}/{count}")
    if index := environment.get("JOB_COMPLETION_INDEX"):
        count = environment.get("JOB_COMPLETIONS")
        if count is None:
            raise InputError(
                "JOB_COMPLETIONS: Expected the number of pods beside JOB_COMPLETION_INDEX, got "
                "none; set it in the job, or pass --shards i/n."
            )
        return parse_stripe(f"{index}/{count}")
    return 0, 1
