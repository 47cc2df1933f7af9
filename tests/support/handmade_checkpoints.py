"""PyTorch checkpoints assembled opcode by opcode, so that tests can lie in any place of one.

Only the `pickle` opcodes and the two containers' layouts; neither PyTorch nor our reader is used.
"""

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

LEGACY_HEAD = b"".join(
    pickle.dumps(value, protocol=2)
    for value in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})
)


def value(content: object) -> bytes:
    """Opcodes of a plain value."""
    return pickle.dumps(content, protocol=2)[2:-1]


def name(module: str, attribute: str) -> bytes:
    """Opcodes of a global."""
    return f"c{module}\n{attribute}\n".encode()


def storage(
    key: str = "0", kind: str = "FloatStorage", length: int = 4, tail: bytes = b""
) -> bytes:
    """Opcodes of a reference to a storage."""
    head = b"(" + value("storage") + name("torch", kind)
    return head + value(key) + value("cpu") + value(length) + tail + b"tQ"


def tensor(
    stored: bytes = storage(),
    offset: object = 0,
    shape: object = (4,),
    strides: object = (1,),
) -> bytes:
    """Opcodes of a tensor."""
    hooks = name("collections", "OrderedDict") + b")R"
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    return (
        rebuild
        + b"("
        + stored
        + value(offset)
        + value(shape)
        + value(strides)
        + b"\x89"
        + hooks
        + b"tR"
    )


def mapping(items: Mapping[str, bytes]) -> bytes:
    """Opcodes of a dict."""
    return b"}(" + b"".join(value(key) + item for key, item in items.items()) + b"u"


def program(body: bytes) -> bytes:
    """A whole pickle."""
    return b"\x80\x02" + body + b"."


def write_zip(
    path: Path,
    body: bytes,
    storages: Mapping[str, bytes],
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """A zip container."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program(body))
        archive.writestr("archive/byteorder", "little")
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
    return path


def write_legacy(
    path: Path, body: bytes, storages: Mapping[str, bytes], lengths: Sequence[int] | None = None
) -> Path:
    """A legacy stream; storages are float32 unless their lengths are given."""
    stream = io.BytesIO()
    stream.write(LEGACY_HEAD + program(body) + pickle.dumps(list(storages), protocol=2))
    lengths = lengths or [len(content) // 4 for content in storages.values()]
    for content, length in zip(storages.values(), lengths, strict=True):
        stream.write(struct.pack("<q", length) + content)
    path.write_bytes(stream.getvalue())
    return path
