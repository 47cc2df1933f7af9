"""The store of a large run: whole objects, one winner, and errors that say what to do."""

import os
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from small_runs import remount, small_disk

from dmbp_jax.errors import InputError, StoreError, StoreFullError, StoreReadOnlyError
from dmbp_jax.runs import Store


def test_objects_come_back_and_keys_are_sorted(tmp_path):
    store = Store(tmp_path / "store")
    assert store.get("a") is None
    assert store.keys() == []
    store.put_many({"b/2": b"two", "b/1": b"one", "c": b""})
    assert store.get_many(["b/1", "x", "c"]) == [b"one", None, b""]
    assert store.keys() == ["b/1", "b/2", "c"]
    assert store.keys("b/") == ["b/1", "b/2"]
    store.delete("b/1")
    store.delete("b/1")
    assert store.keys("b/") == ["b/2"]
    assert (tmp_path / "store" / "b" / "2").read_bytes() == b"two"


def test_of_many_writers_of_a_new_object_one_wins(tmp_path):
    store, told = Store(tmp_path), []
    barrier = threading.Barrier(8)

    def write(i: int) -> None:
        barrier.wait()
        told.append((store.put_new("commits/x", b"%d" % i), i))

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [i for won, i in told if won]
    assert len(winners) == 1
    assert store.get("commits/x") == b"%d" % winners[0]


def test_of_many_processes_one_wins_every_object(tmp_path):
    script = (
        "import sys\n"
        "from dmbp_jax.runs.store import Store\n"
        f"store = Store({str(tmp_path)!r})\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print([int(store.put_new(str(i), sys.argv[1].encode())) for i in range(50)])\n"
    )
    command = [sys.executable, "-c", script]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, name], **pipes) for name in "ab"]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    told = [eval(process.communicate()[0]) for process in processes]
    assert [a + b for a, b in zip(*told, strict=True)] == [1] * 50
    for i, won in enumerate(told[0]):
        assert Store(tmp_path).get(str(i)) == (b"a" if won else b"b")


def test_a_store_can_be_pickled(tmp_path):
    Store(tmp_path).put("a", b"1")
    assert pickle.loads(pickle.dumps(Store(tmp_path))).get("a") == b"1"


def test_urls():
    assert Store("s3://bucket/maps.zarr").spec == {
        "driver": "s3",
        "bucket": "bucket",
        "path": "maps.zarr/",
    }
    assert Store("gs://bucket/a/b/").spec == {"driver": "gcs", "bucket": "bucket", "path": "a/b/"}
    assert Store("file:///a/b").folder == Path("/a/b")
    for url in ("https://host/maps", "s3://"):
        with pytest.raises(InputError, match="store: Expected a path, s3://"):
            Store(url)


def test_the_endpoint_of_another_s3_server(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    spec = Store("s3://bucket").spec
    assert spec["endpoint"] == "http://127.0.0.1:9000"
    assert spec["aws_region"] == "eu-west-1"
    assert spec["path"] == ""


def test_a_file_in_the_way_is_a_typed_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="file"):
        Store(tmp_path / "file").put("a", b"1")


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_file_system_without_locks_is_one_line_and_can_be_used(tmp_path):
    """The system call that locks fails here as it does on a network share without locks."""
    script = (
        "from dmbp_jax.runs.store import Store\n"
        f"store = Store({str(tmp_path / 'share')!r})\n"
        "try:\n"
        "    print(store.put_new('a', b'1'), store.put_new('a', b'2'), store.get('a'))\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    lock = str(tmp_path / "share" / "a.__lock")
    tracer = ["strace", "-f", "-o", os.devnull, "-P", lock, "-e", "trace=fcntl"]
    tracer += ["-e", "inject=fcntl:error=ENOLCK", sys.executable, "-c", script]
    said = []
    for mode in ({}, {"DMBP_STORE_LOCKS": "none"}):
        done = subprocess.run(tracer, env=os.environ | mode, capture_output=True, text=True)
        if "ptrace" in done.stderr:
            pytest.skip("tracing is not permitted here")
        said.append(done.stdout)
    assert said[0].startswith("StoreError ")
    assert "its file system has no locks. Choose another place, or set DMBP_STORE_L" in said[0]
    assert said[0].count("\n") == 1
    assert said[1] == "True False b'1'\n"


@pytest.fixture
def mounted(tmp_path):
    with small_disk(tmp_path / "small", "1m") as folder:
        yield folder


def test_a_full_disk_is_one_error_and_leaves_nothing_half_written(mounted):
    store = Store(mounted)
    store.put("first", bytes(1000))
    with pytest.raises(StoreFullError, match="no space is left"):
        for i in range(40):
            store.put(f"next/{i}", bytes(100_000))
    assert store.get("first") == bytes(1000)
    assert {len(store.get(key)) for key in store.keys("next/")} == {100_000}


def test_a_read_only_target_is_one_error(mounted):
    Store(mounted).put("first", b"1")
    remount(mounted, "ro")
    with pytest.raises(StoreReadOnlyError, match="may not be written"):
        Store(mounted).put_new("next", b"2")
    assert Store(mounted).get("first") == b"1"


def test_every_way_to_write_a_path_is_the_same_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "x y.zarr").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "x y.zarr")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    Store(tmp_path / "x y.zarr").put("a", b"1")
    ways = ["../x y.zarr", "./../x y.zarr/", "~/x y.zarr", f"{tmp_path}//here/../x y.zarr"]
    ways += [f"file://{tmp_path}/x%20y.zarr", f"file://localhost{tmp_path}/x%20y.zarr/", "../link"]
    for way in ways:
        store = Store(way)
        assert store.get("a") == b"1", way
        assert (store.folder, store.name) == (tmp_path / "x y.zarr", "x y.zarr")
        assert pickle.loads(pickle.dumps(store)).get("a") == b"1"
    monkeypatch.chdir(tmp_path / "x y.zarr")
    assert (Store(".").get("a"), Store(".").name) == (b"1", "x y.zarr")
    assert Store("s3://bucket/maps/run/").name == "run"
    assert Store("~nobody-of-this-name/x").folder == tmp_path / "x y.zarr/~nobody-of-this-name/x"
    for empty in ("", "file://"):
        with pytest.raises(InputError, match="got an empty one"):
            Store(empty)
    with pytest.raises(InputError, match="Expected a path in UTF-8"):
        Store(os.fsdecode(b"caf\xe9.zarr"))
