"""One line that says how a large run goes: images a second, time left, devices busy, failures."""

import time

from tqdm.auto import tqdm

from dmbp_jax.runs.worker import Done

_FORMAT = (
    "{percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt}, {rate_noinv_fmt}, {remaining} left{postfix}"
)


class Progress(tqdm):
    """Shows what `run_local` and `run_ray` report; call it with each `Done`.

    Args:
      total, done: rows of the run, and those that were done before.
      workers: processes that work at the same time.
      quiet: show nothing.
    """

    def __init__(self, total: int, done: int = 0, *, workers: int = 1, quiet: bool = False) -> None:
        super().__init__(
            total=total, initial=done, unit="images", disable=quiet, bar_format=_FORMAT
        )
        self._began = time.perf_counter()
        self._busy, self._failed, self._workers = 0.0, 0, workers

    def __call__(self, done: Done) -> None:
        """Move on by a batch."""
        self._busy += done.busy
        self._failed += done.failed
        elapsed = (time.perf_counter() - self._began) * self._workers
        share = min(1.0, self._busy / max(elapsed, 1e-9))
        self.set_postfix_str(f"devices busy {share:.0%}, {self._failed} failed", refresh=False)
        self.update(done.rows)
