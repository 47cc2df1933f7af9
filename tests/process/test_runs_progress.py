"""The line of progress of a large run says rate, time left, share of busy time, and failures."""

import re
import time

from dmbp_jax.runs.progress import Progress
from dmbp_jax.runs.worker import Done


def test_the_line(capsys):
    progress = Progress(10, 4)
    time.sleep(0.3)
    progress(Done(rows=3, failed=1, busy=0.15))
    progress(Done(rows=3, failed=0, busy=0.0))
    progress.close()
    line = capsys.readouterr().err.split("\r")[-1]
    assert line.startswith("100%")
    assert "10/10, " in line
    assert line.endswith(", 1 failed\n")
    share = int(re.search(r"devices busy (\d+)%", line)[1]) / 100
    assert 0 < share <= 0.15 / 0.3 + 0.01
    rate = float(re.search(r"([\d.]+)images/s, 00:00 left", line)[1])
    assert 0 < rate <= 6 / 0.3


def test_a_slow_run_is_told_in_images_a_second_too(capsys):
    progress = Progress(4)
    time.sleep(0.2)
    progress.start_t -= 20  # as if it had begun long ago
    progress(Done(1, 0, 0.1))
    progress.refresh()
    progress.close()
    assert "s/images" not in capsys.readouterr().err.split("\r")[-1]


def test_quiet_says_nothing(capsys):
    progress = Progress(4, quiet=True)
    progress(Done(4, 0, 1.0))
    progress.close()
    assert capsys.readouterr().err == ""
