"""A run in a bucket: the same bytes as on a disk, and the conditional header is sent.

The server is moto's, on the loopback interface, behind a proxy that writes down what is asked.
"""

import http.server
import threading
import urllib.request
from urllib.error import HTTPError

import pytest
from small_runs import contents, small_plan, write_pictures

from dmbp_jax import runs

pytestmark = pytest.mark.slow


class Recorder(http.server.BaseHTTPRequestHandler):
    """Hands every request on to the server, and remembers the conditional ones."""

    server: "RecordingServer"

    def handle_one(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length) if length else None
        condition = self.headers.get("If-None-Match")
        if self.command == "PUT":
            self.server.puts.append((self.path, condition))
        request = urllib.request.Request(
            self.server.target + self.path, body, dict(self.headers), method=self.command
        )
        try:
            answer = urllib.request.urlopen(request)
        except HTTPError as error:
            answer = error
        with answer:
            data = answer.read()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            kept = answer.headers.get("Content-Length") if self.command == "HEAD" else len(data)
            self.send_header("Content-Length", str(kept or 0))
            self.end_headers()
            self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_one

    def log_message(self, *_) -> None:
        """Say nothing."""


class RecordingServer(http.server.ThreadingHTTPServer):
    """The proxy."""

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), Recorder)
        self.target, self.puts = target, []


@pytest.fixture
def bucket(monkeypatch):
    """The proxy before an S3-compatible server with an empty bucket."""
    moto = pytest.importorskip("moto.server")
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    proxy = RecordingServer(f"http://{host}:{port}")
    thread = threading.Thread(target=proxy.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_address[1]}")
    request = urllib.request.Request(f"{proxy.target}/bucket", method="PUT")
    urllib.request.urlopen(request).close()
    yield proxy
    proxy.shutdown()
    proxy.server_close()
    thread.join()
    server.stop()


@pytest.mark.filterwarnings("ignore")
def test_a_run_in_a_bucket_is_the_run_on_a_disk(bucket, tmp_path):
    plan = small_plan(write_pictures(tmp_path / "in", 10))
    runs.run_local(plan, runs.Store(tmp_path / "local"))
    store = runs.Store("s3://bucket/maps.zarr")
    assert runs.run_local(plan, store) == (3, 3)
    local = runs.Store(tmp_path / "local")
    assert store.keys() == local.keys() == sorted(contents(tmp_path / "local"))
    assert store.get_many(store.keys()) == local.get_many(local.keys())
    conditions = {path.removeprefix("/bucket/maps.zarr/"): asked for path, asked in bucket.puts}
    created = {key for key, asked in conditions.items() if asked == "*"}
    assert created == {"manifest.json", *(f"commits/{k:08d}.jsonl" for k in range(3))}
    run = runs.open("s3://bucket/maps.zarr")
    assert run.verify() == []
    assert (run.maps()["003.png"] == runs.open(tmp_path / "local").maps()[3]).all()
    assert not store.put_new("commits/00000000.jsonl", b"late")
    assert runs.run_local(plan, store) == (0, 0)
