"""A run that waits, compiled and ready, to be started and killed: `python killed_run.py IN OUT`.

Says "ready", waits for a line, then runs; says the number of every shard that it has explained,
and at the end how many of its records count.
"""

import sys
import tempfile
from pathlib import Path

from small_runs import small_plan

from dmbp_jax import runs
from dmbp_jax.runs import worker


def main(pictures: str, out: str) -> None:
    """Compile in a store that is thrown away, then wait, then run."""
    plan = small_plan(Path(pictures))
    with tempfile.TemporaryDirectory() as folder:
        runs.run_local(plan, runs.Store(folder))
    process = worker.Worker.process_shard

    def saying(self: worker.Worker, shard: int, *rest) -> runs.Part:
        part = process(self, shard, *rest)
        print(shard, flush=True)
        return part

    worker.Worker.process_shard = saying
    print("ready", flush=True)
    sys.stdin.readline()
    counts = runs.run_local(plan, runs.Store(out))
    print(f"won {counts.committed}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
