"""Downloads: hash, atomic placement, cache folders, and one line of advice when it fails."""

import functools
import hashlib
import http.server
import threading
from pathlib import Path

import pytest

import dmbp_jax
from dmbp_jax.errors import DownloadError
from dmbp_jax.networks.download import cache_directory, fetch
from dmbp_jax.networks.registry import NETWORKS, Checkpoint

CONTENT = bytes(range(256)) * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.SimpleHTTPRequestHandler):
    """Counts what is asked for; `/cut` promises more than it sends."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/cut"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:1000])
            return
        super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "net.pth").write_bytes(CONTENT)
    Handler.asked.clear()
    handler = functools.partial(Handler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DMBP_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    return tmp_path / "cache"


def files(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("known", [DIGEST, DIGEST[:8]])
def test_downloaded_once(server, cache, known, capfd):
    checkpoint = Checkpoint(f"{server}/net.pth", known, batch_norm=True)
    path = fetch(checkpoint)
    assert path == cache / "net.pth"
    assert path.read_bytes() == CONTENT
    told = capfd.readouterr().err
    assert f"downloading {server}/net.pth, checked by {checkpoint.check}\n" in told
    assert "100%" in told  # the progress bar
    assert fetch(checkpoint) == path
    assert Handler.asked == ["/net.pth"]
    assert files(cache) == ["net.pth"]


def test_a_wrong_hash_leaves_nothing(server, cache):
    checkpoint = Checkpoint(f"{server}/net.pth", "0" * 64, batch_norm=True)
    with pytest.raises(DownloadError) as caught:
        fetch(checkpoint)
    message = str(caught.value)
    assert f"Expected SHA-256 {'0' * 64}, got {DIGEST}" in message
    assert f"Fetch {server}/net.pth by hand and put it at {cache / 'net.pth'}" in message
    assert "\n" not in message
    assert files(cache) == []


def test_a_wrong_hash_of_which_8_digits_are_known_is_told_as_such(server, cache):
    with pytest.raises(DownloadError) as caught:
        fetch(Checkpoint(f"{server}/net.pth", "00000000", batch_norm=True))
    message = str(caught.value)
    assert f"Expected SHA-256 beginning with 00000000, got {DIGEST}" in message
    assert f"{cache / 'net.pth'} (checked by the 8 hex digits of its name)" in message
    assert files(cache) == []


def test_8_digits_do_not_pass_for_a_sha256(cache):
    """What is checked is said per file: 32 bits are no SHA-256."""
    checks = {name: entry.checkpoint.check for name, entry in NETWORKS.items() if entry.checkpoint}
    by_name = {
        "vgg11", "vgg13", "vgg11_bn", "vgg13_bn",
        "resnet50_voc", "vgg16_voc", "resnet50_coco", "vgg16_coco",
        "wide_resnet50_2", "resnext50_32x4d", "alexnet", "squeezenet1_0", "squeezenet1_1",
        "densenet121", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny",
        "vit_b_16",
    }  # fmt: skip
    assert len(checks) == 29
    for name, check in checks.items():
        assert check == ("the 8 hex digits of its name" if name in by_name else "SHA-256")
        with pytest.raises(DownloadError) as caught:
            fetch(Checkpoint("http://127.0.0.1:1/net.pth", NETWORKS[name].checkpoint.sha256, True))
        assert f"(checked by {check})" in str(caught.value)


def test_a_checkpoint_inside_a_package(cache, tmp_path, monkeypatch):
    checkpoint = Checkpoint("models/net.pth", DIGEST, True, package="a_package_with_weights")
    with pytest.raises(DownloadError, match="Install the Python package a_package_with_weights"):
        fetch(checkpoint)
    folder = tmp_path / "site" / "a_package_with_weights"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemError('this code must not run')")
    (folder / "models" / "net.pth").write_bytes(CONTENT[:-1])
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(DownloadError, match="checked by SHA-256"):
        fetch(checkpoint)
    (folder / "models" / "net.pth").write_bytes(CONTENT)
    assert fetch(checkpoint) == folder / "models" / "net.pth"
    cache.mkdir()
    (cache / "net.pth").write_bytes(CONTENT)
    assert fetch(checkpoint) == cache / "net.pth"


@pytest.mark.parametrize("path", ["missing.pth", "cut.pth"])
def test_a_failed_download_leaves_nothing(server, cache, path):
    with pytest.raises(DownloadError, match="by hand") as caught:
        fetch(Checkpoint(f"{server}/{path}", DIGEST, batch_norm=True))
    assert "\n" not in str(caught.value)
    assert files(cache) == []


def test_offline(cache):
    with pytest.raises(DownloadError, match=r"no connection.*by hand"):
        fetch(Checkpoint("http://127.0.0.1:1/net.pth", DIGEST, batch_norm=True))
    assert files(cache) == []


def test_a_corrupt_file_in_the_cache_is_replaced(server, cache):
    cache.mkdir()
    (cache / "net.pth").write_bytes(CONTENT[:-1])
    assert fetch(Checkpoint(f"{server}/net.pth", DIGEST, batch_norm=True)).read_bytes() == CONTENT
    (cache / "net.pth").write_bytes(CONTENT[:-1])
    with pytest.raises(DownloadError):
        fetch(Checkpoint("http://127.0.0.1:1/net.pth", DIGEST, batch_norm=True))
    assert files(cache) == []


def test_a_file_put_there_by_hand(cache):
    cache.mkdir()
    (cache / "net.pth").write_bytes(CONTENT)
    offline = Checkpoint("http://127.0.0.1:1/net.pth", DIGEST, batch_norm=True)
    assert fetch(offline) == cache / "net.pth"


def test_no_place_to_put_it(server, cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(DownloadError, match="by hand"):
        fetch(Checkpoint(f"{server}/net.pth", DIGEST, batch_norm=True))


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DMBP_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_directory() == tmp_path / ".cache" / "dmbp-jax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "dmbp-jax"
    monkeypatch.setenv("DMBP_HOME", "~/mine")
    assert cache_directory() == tmp_path / "mine"
    monkeypatch.setenv("DMBP_HOME", "")
    assert cache_directory() == tmp_path / "xdg" / "dmbp-jax"


def test_load_says_what_to_fetch(cache, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(DownloadError) as caught:
        dmbp_jax.load("vgg16_voc")
    assert "https://dl.fbaipublicfiles.com/torchray/vgg16_voc-b050e8c3.pth.tar" in str(caught.value)
    assert str(cache / "vgg16_voc-b050e8c3.pth.tar") in str(caught.value)
