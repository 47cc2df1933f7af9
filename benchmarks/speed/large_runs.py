"""Large runs: throughput against a bare loop, memory, resuming, float16, and a run to look at.

Usage: python -m benchmarks large_runs {throughput,memory,resume,size,float16,show} [--network NAME]
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

import dmbp_jax
from benchmarks.speed.contenders import make_network
from dmbp_jax import DMBP, runs
from dmbp_jax.data import FilePicture, list_generated, load_pictures
from dmbp_jax.engine.scores import PROBABILITIES
from dmbp_jax.metrics import insertion
from dmbp_jax.runs.progress import Progress
from dmbp_jax.runs.records import committed
from dmbp_jax.runs.worker import Done

BATCH = 8


def write_pictures(folder: Path, count: int, distinct: int | None = None) -> Path:
    """Generated pictures as PNG files; beyond `distinct` they are copies of the first ones."""
    folder.mkdir(parents=True)
    for i, picture in enumerate(list_generated(seed=3, size=distinct or count)):
        picture.open().save(folder / f"{i:06d}.png")
    for i in range(distinct or count, count):
        shutil.copyfile(folder / f"{i % distinct:06d}.png", folder / f"{i:06d}.png")
    return folder


def bare_loop(
    net: dmbp_jax.Network, files: list[Path], config: DMBP, *, probabilities: bool = True
) -> float:
    """Seconds to decode ahead and explain batch by batch, keeping the results in memory.

    With `probabilities` it makes what a run stores; without, it spares a forward pass.
    """
    began, results = time.perf_counter(), []
    pictures = [FilePicture(file.name, file, (0,)) for file in files]
    loaded = load_pictures(pictures, net.preprocess, prefetch=2 * BATCH)
    while group := [one.x for _, one in zip(range(BATCH), loaded, strict=False)]:
        x = np.stack(group)
        result = dmbp_jax.attribute(net, x, config=config, chunk_size=BATCH)
        results.append(np.asarray(result.heatmap))
        if probabilities:
            np.asarray(_probabilities(net, x))
    assert sum(map(len, results)) == len(files)
    return time.perf_counter() - began


@jax.jit
def _probabilities(net: dmbp_jax.Network, x: jax.Array) -> jax.Array:
    return PROBABILITIES[net.activation](net(x))


def stored_run(net: dmbp_jax.Network, folder: Path, config: DMBP) -> float:
    """Seconds of `run_local` over the same files, compiled before."""
    plan = runs.plan(folder, network=net, config=config)
    with tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        runs.run_local(plan, runs.Store(out), batch_size=BATCH)
        return time.perf_counter() - began


def throughput(name: str, folder: Path) -> None:
    """Images a second of the run and of the loop, in turns.

    Beside the seconds on the clock those of the processors, which other work disturbs less.
    """
    net, config = make_network(name, 224), DMBP(steps=5)
    count, rounds = (256, 5) if name == "builtin" else (8, 2)
    pictures = write_pictures(folder / "in", count)
    files = sorted(pictures.iterdir())
    contenders = {
        "loop": lambda: bare_loop(net, files, config),
        "run": lambda: stored_run(net, pictures, config),
        "loop without probability": lambda: bare_loop(net, files, config, probabilities=False),
    }
    bare_loop(net, files[:BATCH], config)  # compiles
    stored_run(net, pictures, config)
    seconds: dict[str, list[tuple[float, float]]] = {title: [] for title in contenders}
    for _ in range(rounds):
        for title, contender in contenders.items():
            busy = time.process_time()
            wall = contender()
            seconds[title].append((wall, time.process_time() - busy))
    print(f"{name}, {config.steps} steps, {count} images, {rounds} rounds:")
    for title, times in seconds.items():
        ratios = np.array(times) / np.array(seconds["run"])
        (wall, busy), low, high = np.median(ratios, axis=0), ratios.min(0), ratios.max(0)
        print(
            f"  {title}: {count / np.median(times, axis=0)[0]:.2f} images/s; the run has "
            f"{wall:.3f} of its rate ({low[0]:.3f} to {high[0]:.3f}), by processor time "
            f"{busy:.3f} ({low[1]:.3f} to {high[1]:.3f})"
        )


def resident() -> float:
    """Resident memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    return pages * 4096 / 1e6


def memory(name: str, folder: Path) -> None:
    """Growth of resident memory over 5,000 images, after the first 500."""
    pictures = write_pictures(folder / "in", 5000, distinct=200)
    plan = runs.plan(pictures, network=name, config=DMBP(steps=1))
    sizes: list[float] = []
    rows = 0

    def report(done: Done) -> None:
        nonlocal rows
        if rows // 500 != (rows + done.rows) // 500:
            sizes.append(resident())
        rows += done.rows

    runs.run_local(plan, runs.Store(folder / "out"), batch_size=BATCH, report=report)
    shown = ", ".join(f"{size:.0f}" for size in sizes)
    print(f"{name}: MB after every 500 images: {shown}; growth {sizes[-1] / sizes[0] - 1:+.1%}")


def clocks() -> np.ndarray:
    """Seconds on the clock, and of the processors."""
    return np.array([time.perf_counter(), time.process_time()])


def resume(name: str, folder: Path) -> None:
    """Time until a run goes on, of which 100,000 rows or shards are done."""
    net = dmbp_jax.load(name)
    pictures = write_pictures(folder / "in", 100_000, distinct=1)
    for shard_size in (128, 1):
        began = clocks()
        plan = runs.plan(pictures, network=net, shard_size=shard_size)
        listed = clocks() - began
        out = folder / f"out-{shard_size}"
        runs.open_manifest(runs.Store(out), plan)
        (out / "commits").mkdir()
        for shard in range(plan.shards - 1):
            (out / "commits" / f"{shard:08d}.jsonl").touch()
        began = clocks()
        store = runs.Store(out)
        runs.open_manifest(store, plan)
        left = plan.shards - len(committed(store))
        started = clocks() - began
        print(
            f"100,000 rows in {plan.shards:,} shards, {left} to do: {listed[0]:.2f} s "
            f"({listed[1]:.2f} s of the processor) to list the files and decide, "
            f"{started[0]:.2f} s ({started[1]:.2f} s) to accept the manifest and find what is done"
        )


def size(name: str, folder: Path) -> None:
    """Bytes that a million images take, by what is saved."""
    net = make_network(name, 224)
    pictures = write_pictures(folder / "in", 16)
    for save in ("heatmap", "map", "positive,negative"):
        plan = runs.plan(pictures, network=net, config=DMBP(steps=5), save=save, shard_size=16)
        part = runs.Worker(plan).process_shard(0)
        each = sum(map(len, part.objects.values())) / len(part.rows)
        print(f"{name}, {save}: {each / 1e3:.0f} kB an image, {each / 1e3:.0f} GB a million")


def float16(name: str, folder: Path) -> None:
    """What float16 costs: relative error of the values, and the insertion metric."""
    net = dmbp_jax.load(name)
    pictures = write_pictures(folder / "in", 64)
    maps = {}
    for dtype in ("float16", "float32"):
        plan = runs.plan(pictures, network=net, config=DMBP.quick(), dtype=dtype)
        runs.run_local(plan, runs.Store(folder / dtype))
        run = runs.open(folder / dtype)
        maps[dtype] = run.maps("heatmap")[:]
    labels = np.array([row["label"] for row in run.rows], np.int32)
    half, full = maps["float16"], maps["float32"]
    known = full != 0
    errors = np.abs(half - full)[known] / np.abs(full[known])
    x = np.stack([net.preprocess(path) for path in sorted(pictures.iterdir())])
    scores = [
        np.array([insertion(net, *one).auc for one in zip(x, labels, m, strict=True)])
        for m in (half, full)
    ]
    change = np.abs(scores[0] - scores[1])
    print(
        f"{name}, {len(x)} images: 99 % quantile of the relative error "
        f"{np.quantile(errors, 0.99):.1e}, largest change of IM {change.max():.1e}, "
        f"of its mean {abs(scores[0].mean() - scores[1].mean()):.1e}"
    )


def show(name: str, folder: Path) -> None:
    """2,000 generated pictures and their report, left in `dmbp-run`."""
    out = Path("dmbp-run")
    pictures = write_pictures(out / "pictures", 2000)
    plan = runs.plan(pictures, network=name, config=DMBP.quick())
    progress = Progress(len(plan.inputs))
    began = time.perf_counter()
    runs.run_local(plan, runs.Store(out / "maps.zarr"), report=progress)
    seconds = time.perf_counter() - began
    progress.close()
    page = runs.write_report(runs.open(out / "maps.zarr"), out / "report.html")
    size = sum(path.stat().st_size for path in (out / "maps.zarr").rglob("*") if path.is_file())
    print(
        f"{len(plan.inputs)} images in {seconds:.0f} s, {size / 1e6:.0f} MB of maps; "
        f"{page}: {page.stat().st_size / 1e6:.1f} MB"
    )


def main() -> None:
    """Run one of them, in a folder that is removed afterwards."""
    commands = {one.__name__: one for one in (throughput, memory, resume, size, float16, show)}
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=commands)
    parser.add_argument("--network", default="builtin")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        commands[args.what](args.network, Path(folder))
