"""Requests that were meant to bring a server down, as bytes; all of them go to loopback, bounded in number and size."""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import zlib
from collections.abc import Iterator

from PIL import Image
from serving import png, text_of

MB = 2**20
BACKSLASH = b"\\"


def http(path: str, body: bytes, kind: str = "application/json", *, length: int | None = None) -> bytes:
    """A POST as it travels. length: what it claims to be long."""
    size = len(body) if length is None else length
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: a",
        f"Content-Type: {kind}",
        f"Content-Length: {size}",
        "Connection: close",
    )
    return "\r\n".join([*lines, "", ""]).encode() + body


def as_json(path: str, value: object) -> bytes:
    """A POST of JSON."""
    return http(path, json.dumps(value).encode())


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def picture(size_wh: tuple[int, int], kind: str, frames: int = 1) -> bytes:
    """A whole picture that is small as a file."""
    file = io.BytesIO()
    more = (
        {"save_all": True, "append_images": [Image.new("L", size_wh, i) for i in range(1, frames)]}
        if frames > 1
        else {}
    )
    Image.new("L", size_wh).save(file, kind, **more)
    return file.getvalue()


def pictures() -> Iterator[bytes]:
    """Files that claim too much, hold too little, or are none."""
    yield from (bomb(60_000, 60_000), bomb(3_000, 3_000), bomb(1_000, 1_000), bomb(2**31 - 1, 1), bomb(400, 1))
    yield from (picture((2_000, 1_990), "PNG"), picture((2_100, 2_000), "TIFF"), picture((64, 64), "GIF", 200))
    yield from (
        png()[:-20],
        png() + b"\0" * MB,
        b"\xff\xd8\xff" + bytes(1000),
        b"P6 99999 99999 255\n",
        b"II*\0" + b"\xff" * 99,
    )
    yield from (b"%!PS-Adobe-3.0 EPSF", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"", b"\0" * MB)


def broken_bodies() -> Iterator[bytes]:
    """Bodies that are JSON of the wrong kind, or none."""
    yield from (b"", b"{", b"[]", b"null", b'"', b"\xff\xfe", b"{" * 100_000, b"[" * (2 * MB), b"9" * MB, b"-" * 1000)
    yield from (BACKSLASH * MB, b'"' + (BACKSLASH + b'"') * (MB // 2), (b'"' + BACKSLASH) * (MB // 2), b"[1e999]")
    yield b"[" + b"7," * (MB - 1) + b"7]"
    yield json.dumps({str(i): i for i in range(100_000)}).encode()
    yield b'{"a":' * 5_000 + b"1" + b"}" * 5_000
    yield b'{"image": "AA", "query": "' + BACKSLASH + b'ud800"}'


def forms() -> Iterator[bytes]:
    """Forms that end early, hold too many fields, or one without an end."""
    kind, part = "multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="query"\r\n\r\n'
    yield http("/v1/segment", part * 5_000, kind)
    yield http("/v1/segment", part + b"\r" * MB, kind)
    yield http("/v1/segment", b"--b\r\n" + b"x" * MB, kind)
    yield http("/v1/segment", part + b"a\r\n--b--\r\n", "multipart/form-data")
    yield http("/v1/segment", b"a=b&" * 10_000, "application/x-www-form-urlencoded")


def labelled(config: str, *data: str) -> bytes:
    """What Label Studio asks."""
    tasks = [{"data": {"photo": one}} for one in data or (text_of(png()),)]
    return as_json("/label-studio/predict", {"tasks": tasks, "label_config": config})


def label_studio() -> Iterator[bytes]:
    """Configurations that nest, declare entities, or want more than there is."""
    image = '<Image name="i" value="$photo"/>'
    yield labelled("<BrushLabels>" * 40_000 + "</BrushLabels>" * 40_000)
    yield labelled("<Label>" * 9_000 + "</Label>" * 9_000)
    yield labelled('<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><View>&b;</View>')
    yield labelled(f'<View>{image}<BrushLabels toName="i">' + '<Label value="x"/>' * 50_000 + "</BrushLabels></View>")
    good = f'<View>{image}<BrushLabels name="b" toName="i"><Label value="none"/></BrushLabels></View>'
    for address in ("file:///etc/passwd", "http://127.0.0.1:1/a", "//127.0.0.2/a", "/a/../../b", "data:,", "\0"):
        yield labelled(good, address)
    context = {"result": [{"type": "keypointlabels", "value": {"x": 1, "y": 1}}] * 5_000}
    yield as_json(
        "/label-studio/predict", {"tasks": [{"data": {}}], "label_config": good, "params": {"context": context}}
    )


def on_masks() -> list[bytes]:
    """Everything for `segrl serve`."""
    found = [
        http(path, body) for path in ("/v1/segment", "/v1/masks", "/label-studio/predict") for body in broken_bodies()
    ]
    found += [as_json("/v1/segment", {"image": text_of(data), "query": "none"}) for data in pictures()]
    found += [*forms(), *label_studio()]
    image = text_of(png())
    for prompts in ([7] * 300_000, [{}] * 5_000, [{"box_xyxy": [0, 0, 1e300, 5]}], [{"box_xyxy": [0, 0, 5, 5]}] * 65):
        found.append(as_json("/v1/masks", {"image": image, "prompts": prompts}))
    large = text_of(picture((2_000, 1_990), "PNG"))
    found += [
        as_json("/v1/masks", {"image": large, "prompts": [{"box_xyxy": [0, 0, 1999, 1989]}] * n}) for n in (4, 64)
    ]
    queries = ("n" * 500_000, ["none"] * 5_000, [7] * 9_000, "\0", "", "../../etc/passwd", "fail", "<|im_end|>" * 50)
    found += [as_json("/v1/segment", {"image": image, "query": query}) for query in queries]
    found += [
        as_json("/v1/segment", {"image": name, "query": "none"}) for name in ("file:///etc/passwd", "A" * MB, "=")
    ]
    return [*found, *not_http()]


def not_http() -> Iterator[bytes]:
    """What no client of good will sends."""
    rng = random.Random(0)
    yield from (rng.randbytes(2_000), b"\0" * 500, b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n", b"\r\n" * 1_000)
    yield b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"
    yield b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 400 + b"\r\n\r\n"
    yield b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"
    yield b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000 + b"\r\n"
    yield http("/v1/segment", b"{}", length=10**9)


def on_reward(truth: str) -> list[bytes]:
    """Everything for `segrl serve-reward`."""
    deep = '{"image":' + "[" * 20_000 + "]" * 20_000 + "}"
    line = {"image": "people/images/FudanPed0.jpg", "query": "it"}
    huge = {"size": [30_000, 30_000], "counts": "0" * 500}
    truths = ["", "x", deep, "9" * 5_000 + ":a", "\0", "0:../../etc/passwd", json.dumps({**line, "mask": huge})]
    truths += [
        json.dumps({**line, "image": name}) for name in ("/etc/hostname", "../policy/config.json", "a\0b", "a" * 5_000)
    ]
    truths += [
        json.dumps({**line, "mask": {"size": [16, 24], "counts": counts}}) for counts in ("~~~", "", "0" * 9_999)
    ]
    truths += [json.dumps({**line, "mask": [[0, 0, 1e8, 0, 1e8, 1e8]]}), '{"image": 1' + "0" * 5_000 + "}"]
    rows = [[{"text": "a", "ground_truth": one}] for one in truths]
    rows += [
        [{"text": "x" * (3 * MB // 2), "ground_truth": truth}],
        [{"text": "a", "ground_truth": truth}] * 6_000,
        [7] * 9_000,
    ]
    texts = ("<bbox>" * 9_000, "[" * 50_000, "\0", "<bbox>[" + "9" * 5_000 + ",1,2,3]</bbox>", "<think>" * 10_000)
    rows += [[{"text": text, "ground_truth": truth}] for text in texts]
    found = [as_json("/score", {"rows": one}) for one in rows] + [http("/score", body) for body in broken_bodies()]
    half = json.dumps({"rows": [{"text": "\ud800", "ground_truth": truth}]})
    return [*found, http("/score", half.encode()), *not_http()]


def get(path: str) -> bytes:
    """A GET as it travels; the path as it stands, however wrong."""
    return f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()


JOIN, UPLOAD = "/gradio_api/queue/join", "/gradio_api/upload"
PRIVATE = ("/etc/passwd", "/dev/zero", "/proc/self/environ", "http://127.0.0.1:1/a.png", "/tmp", "\0")
UNUSED = (
    "/gradio_api/proxy=http://127.0.0.1:1/", "/gradio_api/call/x", "/gradio_api/component_server",
    "/gradio_api/stream/x/y/z", "/gradio_api/mcp/", "/login", "/monitoring", "/gradio_api/custom_component/a/b/c",
    "/docs", "/openapi.json", "/static/../../../etc/passwd", "/assets/..%2f..%2f..%2fetc/passwd",
    "/files/../x/mask.png", "/gradio_api/file/etc/passwd",
)  # fmt: skip


def picked(picture: object, n_fn: int = 0, **more: object) -> bytes:
    """A visitor's event: a picture and a query for the page's function of that number."""
    return as_json(JOIN, {"data": [picture, "it"], "fn_index": n_fn, "session_hash": "s", **more})


def files(*parts: tuple[str, bytes], end: bytes = b"--b--\r\n") -> bytes:
    """An upload of files by name."""
    body = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="'
        + name.encode()
        + b'"\r\n\r\n'
        + data
        + b"\r\n"
        for name, data in parts
    )
    return http(UPLOAD, body + end, "multipart/form-data; boundary=b")


def on_demo() -> list[bytes]:
    """Everything for `segrl demo` that must be refused."""
    found = [picked({"path": path, "meta": {"_type": "gradio.FileData"}}, n) for path in PRIVATE for n in range(4)]
    found += [picked([{"deep": [{"path": path}]}]) for path in PRIVATE]
    found += [picked({"url": url}) for url in ("http://127.0.0.1:1/a", "file:///etc/passwd", "data:,x")]
    found += [picked(None, -1), picked(None, 10**6), picked(None, session_hash="s" * 5_000), picked("a" * 2 * MB)]
    found += [picked(None, session_hash=None), as_json(JOIN, {"data": [[]] * 30_000, "fn_index": 0})]
    found += [
        http(path, body) for path in (JOIN, "/gradio_api/cancel", "/gradio_api/reset") for body in broken_bodies()
    ]
    found += [get(f"/gradio_api/file={path}") for path in (*PRIVATE[:3], "/etc/%70asswd", "//etc/passwd", "../../x")]
    found += [get(path) for path in UNUSED]
    found += [files(("a.png", b"\0" * 3 * MB)), files(*((f"{i}.png", b"\0" * MB) for i in range(3)))]
    return [*found, *not_http(), http("/gradio_api/run/predict", base64.b64encode(b"x")), http("/login", b"a=b")]


def taken_by_demo() -> list[bytes]:
    """What `segrl demo` may take, and must come to nothing."""
    names = (
        "../../up.png",
        "a" * 5_000 + ".png",
        "",
        "a/b/c.png",
        "\\..\\x.png",
        ".png",
        "%00.png",
        "e\u0301 \u202e.png",
    )
    found = [files((name, png())) for name in names] + [files(("a.png", data)) for data in pictures()]
    found += [
        files(("a.png", png()), end=b""),
        http(UPLOAD, b"", "multipart/form-data"),
        http(UPLOAD, b"x", "text/plain"),
    ]
    found += [files(*((f"{i}.png", png()) for i in range(500)))]
    # a session each: one that sends more than twenty events and listens to none is refused, which is a kind of its own
    nonsense = [(n, picture) for n in range(12) for picture in (None, 7, "x", {}, [[1]] * 9)]
    found += [picked(picture, n, session_hash=f"s{i}") for i, (n, picture) in enumerate(nonsense)]
    found += [picked(None, 0, session_hash="many")] * 30
    events = (None, {}, {"of": "x"}, {"number": 1e300, "of": 7, "objects": [{"box_xyxy": [0, 0, 1e300, 5]}] * 90})
    drawn = [(n, event) for n in range(12) for event in events]
    found += [picked(None, n, event_data=event, session_hash=f"e{i}") for i, (n, event) in enumerate(drawn)]
    found += [get("/gradio_api/upload_progress?upload_id=x"), get("/gradio_api/queue/data"), get("/files/x/mask.png")]
    found += [as_json(f"/gradio_api/{name}", {"session_hash": "s", "event_id": "e"}) for name in ("cancel", "reset")]
    return found
