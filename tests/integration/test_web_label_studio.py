"""Label Studio's protocol, its regions, and from where images are fetched."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from serving import box_mask, png, running, text_of

from segrl import brush_rle
from segrl.contours import EDITABLE_PX
from segrl.masks import polygons_to_mask
from segrl.web.errors import Refused
from segrl.web.limits import ServerSettings
from segrl.web.regions import read_config, region

SIZE, BOX = (40, 30), (3, 4, 20, 25)
CONFIG = """<View>
  <Image name="img" value="$photo"/>
  <!-- three ways -->
  <BrushLabels name="brush" toName="img"><Label value="A" hint="box 3 4 20 25"/><Label value="none"/></BrushLabels>
  <PolygonLabels name="poly" toName="img"><Label value="box 3 4 20 25"/></PolygonLabels>
  <RectangleLabels name="rect" toName="img"><Label value="R" hint="box 3 4 20 25"/></RectangleLabels>
  <Choices name="c" toName="img"><Choice value="x"/></Choices>
</View>"""
DATA = "data:image/png;base64," + text_of(png())


def unpack(data):
    """Label Studio's reader of run lengths, as its format is described: the words, one after the other."""
    bits = "".join(f"{byte:08b}" for byte in data)
    at = 0

    def read(n):
        nonlocal at
        at += n
        return int(bits[at - n : at], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    words = []
    while len(words) < total:
        is_run, length = read(1), read(sizes[read(2)]) + 1
        words += [read(word)] * length if is_run else [read(word) for _ in range(length)]
    return np.array(words)


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_run_lengths_hold_every_mask(mask):
    rgba = unpack(brush_rle.encode(mask)).reshape(*mask.shape, 4)
    assert (rgba == (mask[..., None] * 255)).all()


@given(st.integers(1, 300_000))
def test_runs_that_no_field_holds_are_cut(n):
    assert len(unpack(brush_rle.encode(np.ones((1, n // 100 + 1), dtype=bool)))) == 4 * (n // 100 + 1)


def test_a_hint_is_the_query():
    wanted = read_config(CONFIG)
    assert [(one.kind, one.label, one.query) for one in wanted] == [
        ("brushlabels", "A", "box 3 4 20 25"),
        ("brushlabels", "none", "none"),
        ("polygonlabels", "box 3 4 20 25", "box 3 4 20 25"),
        ("rectanglelabels", "R", "box 3 4 20 25"),
    ]
    assert {one.image_key for one in wanted} == {"photo"}


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa">]><View>&a;</View>'


@pytest.mark.parametrize("config", ["", "<View", "<View/>", BOMB, '<View><BrushLabels toName="nothing"/></View>'])
def test_configurations_that_cannot_be_served(config):
    with pytest.raises(Refused, match="label_config"):
        read_config(config)


PERSONAL = "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCJ9.c2lnbmF0dXJl"


class Studio(BaseHTTPRequestHandler):
    """A Label Studio that has one picture."""

    asked: list = []  # noqa: RUF012
    accepted = "Token k3y"
    n_exchanges = 0

    def do_POST(self):
        """The exchange of a personal access token; the bearer tokens are numbered."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_known = self.path == "/api/token/refresh/" and body == {"refresh": PERSONAL}
        self.send_response(200 if is_known else 401)
        self.end_headers()
        if is_known:
            Studio.n_exchanges += 1
            Studio.accepted = f"Bearer b{Studio.n_exchanges}"
            self.wfile.write(json.dumps({"access": f"b{Studio.n_exchanges}"}).encode())

    def do_GET(self):
        if self.headers.get("Authorization") != self.accepted:
            self.send_response(401)
            self.end_headers()
            return
        self.asked.append((self.path, self.headers.get("Authorization")))
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/data/a.png")
            self.end_headers()
            return
        self.send_response(200 if self.path == "/data/a.png" else 404)
        self.end_headers()
        self.wfile.write(png() if self.path == "/data/a.png" else b"")

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def studio():
    with HTTPServer(("127.0.0.1", 0), Studio) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def client(studio):
    settings = ServerSettings(label_studio_url=studio, label_studio_key="k3y")
    with running(settings) as server, httpx.Client(base_url=f"{server.url}/label-studio", timeout=30) as one:
        yield one


def predict(client, *images, config=CONFIG, **params):
    tasks = [{"id": i, "data": {"photo": image}} for i, image in enumerate(images)]
    return client.post("/predict", json={"tasks": tasks, "label_config": config, "project": "1.2", "params": params})


def test_the_handshake(client):
    assert client.get("/health").json()["status"] == "UP"
    assert client.post("/setup", json={"project": "1", "schema": CONFIG}).json()["model_version"].startswith("segrl")
    assert client.post("/webhook", json={"action": "ANNOTATION_CREATED"}).status_code == 200
    assert len(client.get("/versions").json()["versions"]) == 1


def test_regions_of_every_kind_hold_the_mask(client):
    (prediction,) = predict(client, DATA).json()["results"]
    assert prediction["score"] == 1
    found = {one["type"]: one for one in prediction["result"]}
    assert len(prediction["result"]) == len(found) == 3
    truth = box_mask(BOX, SIZE)
    for one in found.values():
        assert (one["original_width"], one["original_height"], one["to_name"]) == (*SIZE, "img")
    brushed = found["brushlabels"]["value"]
    assert (brushed["format"], brushed["brushlabels"], found["brushlabels"]["from_name"]) == ("rle", ["A"], "brush")
    np.testing.assert_array_equal(unpack(brushed["rle"])[::4].reshape(SIZE[::-1]) == 255, truth)
    ring = (np.array(found["polygonlabels"]["value"]["points"]) / 100 * SIZE).ravel().tolist()
    np.testing.assert_array_equal(polygons_to_mask([ring], SIZE[::-1]), truth)
    box = found["rectanglelabels"]["value"]
    np.testing.assert_allclose([box["x"], box["width"]], [7.5, 42.5])


TWO_IMAGES = """<View>
  <Image name="left" value="$photo"/><Image name="right" value="$other"/>
  <BrushLabels name="a" toName="left"><Label value="A" hint="box 3 4 20 25"/></BrushLabels>
  <BrushLabels name="b" toName="right"><Label value="B" hint="box 1 2 8 9"/></BrushLabels>
  <RectangleLabels name="c" toName="left"><Label value="C" hint="box 0 0 9 9"/></RectangleLabels>
  <Image name="third" value="$third"/>
</View>"""


def ask_two_images(client, studio, **params):
    Studio.asked.clear()
    data = {"photo": f"{studio}/data/a.png", "other": "data:image/png;base64," + text_of(png((16, 20)))}
    body = {"tasks": [{"data": data}], "label_config": TWO_IMAGES, "params": params}
    return client.post("/predict", json=body)


def test_each_label_is_looked_for_in_its_own_image(client, studio):
    found = {one["from_name"]: one for one in ask_two_images(client, studio).json()["results"][0]["result"]}
    assert len(Studio.asked) == 1
    assert {name: (one["to_name"], one["original_width"]) for name, one in found.items()} == {
        "a": ("left", 40),
        "b": ("right", 16),
        "c": ("left", 40),
    }
    mask = unpack(found["b"]["value"]["rle"])[::4].reshape(20, 16) == 255
    np.testing.assert_array_equal(mask, box_mask((1, 2, 8, 9), (16, 20)))


def test_a_mask_is_of_the_image_that_was_drawn_on(client, studio):
    def drawn(to_name):
        found = ask_two_images(client, studio, context=drawn_box(to_name)).json()["results"][0]["result"]
        return [(one["from_name"], one["original_width"]) for one in found]

    assert (drawn("left"), drawn("right")) == ([("a", 40)], [("b", 16)])


def drawn_box(to_name, *labels):
    value = {"x": 25, "y": 50, "width": 25, "height": 50, "rectanglelabels": list(labels)}
    return {"result": [{"type": "rectanglelabels", "to_name": to_name, "value": value}]}


def test_a_drawing_that_no_brush_label_can_carry_is_told(client, studio):
    for to_name, label, said in (("third", "A", "on the image that was drawn on"), ("left", "Cup", "label 'Cup'")):
        answer = ask_two_images(client, studio, context=drawn_box(to_name, label))
        assert answer.status_code == 422
        assert said in answer.json()["detail"]
        assert said in client.get("/health").json()["last_failure"]


def test_smart_points_and_boxes_give_their_mask(client):
    def drawn(kind, **value):
        return {"type": kind, "value": {**value, kind: ["A"]}, "is_positive": True}

    box = drawn("rectanglelabels", x=25, y=50, width=25, height=50)
    answer = predict(client, DATA, context={"result": [box]}).json()["results"][0]["result"]
    (drawn_region,) = answer
    mask = unpack(drawn_region["value"]["rle"])[::4].reshape(SIZE[::-1]) == 255
    np.testing.assert_array_equal(mask, box_mask((10, 15, 20, 30), SIZE))
    point = drawn("keypointlabels", x=50, y=50, width=1)
    assert len(predict(client, DATA, context={"result": [point]}).json()["results"][0]["result"]) == 1
    assert predict(client, DATA, context={"result": [{"type": "keypointlabels"}]}).status_code == 422


def test_images_come_from_that_host_alone(client, studio):
    Studio.asked.clear()
    assert predict(client, "/data/a.png", f"{studio}/data/a.png").status_code == 200
    assert Studio.asked == [("/data/a.png", "Token k3y")] * 2
    other = studio.replace("127.0.0.1", "localhost")
    for address in (
        f"{other}/data/a.png",
        "//127.0.0.2/a.png",
        "file:///etc/passwd",
        "s3://bucket/a.png",
        studio.replace("http://", "http://user@evil.example/"),
        studio + "@127.0.0.2/a.png",
        "http://[",
        "https" + studio[4:] + "/data/a.png",
    ):
        assert predict(client, address).status_code == 422, address
    assert len(Studio.asked) == 2
    assert predict(client, "/moved").status_code == 422
    assert predict(client, "/data/gone.png").status_code == 422
    assert [path for path, _ in Studio.asked[2:]] == ["/moved", "/data/gone.png"]


def test_requests_that_make_no_sense(client):
    for body in ({}, {"tasks": [], "label_config": CONFIG}, {"tasks": [{"data": {}}], "label_config": CONFIG}):
        assert client.post("/predict", json=body).status_code == 422
    assert client.post("/predict", content=b"{").status_code == 400


def with_key(studio, key):
    return running(ServerSettings(label_studio_url=studio, label_studio_key=key))


def test_a_personal_access_token_is_exchanged_and_refreshed(studio):
    Studio.n_exchanges = 0
    with with_key(studio, PERSONAL) as server, httpx.Client(base_url=f"{server.url}/label-studio") as client:
        assert client.post("/setup", json={}).status_code == 200
        assert predict(client, "/data/a.png").status_code == 200
        assert Studio.n_exchanges == 1
        Studio.accepted = "Bearer expired"
        assert predict(client, "/data/a.png").status_code == 200
        assert Studio.n_exchanges == 2
    Studio.accepted = "Token k3y"


@pytest.mark.parametrize(
    ("key", "said"),
    [("0" * 40, "create a personal access token"), ("eyJ.a.b", "create a new one"), (None, "--label-studio-key")],
)
def test_a_key_that_is_refused_is_told_when_the_project_connects_and_with_each_task(studio, key, said):
    with with_key(studio, key) as server, httpx.Client(base_url=f"{server.url}/label-studio") as client:
        assert client.get("/health").json()["note"].endswith("ML_BLOCK_LOCAL_IP=false")
        connected = client.post("/setup", json={})
        assert (connected.status_code, said in connected.text) == ((200, False) if key is None else (422, True))
        asked = predict(client, "/data/a.png")
        assert (asked.status_code, said in asked.json()["detail"]) == (422, True)
        assert said in client.get("/health").json()["last_failure"]


def test_a_task_that_fails_leaves_the_others_their_regions(client):
    good, bad = predict(client, DATA, "/data/gone.png").json()["results"]
    assert (len(good["result"]), good["detail"]) == (3, "")
    assert (bad["result"], bad["score"]) == ([], 0)
    assert "answers 404" in bad["detail"]


def test_polygons_can_be_edited_unless_exact_ones_are_asked_for():
    ys, xs = np.mgrid[:200, :300]
    mask = ((xs - 150) / 120) ** 2 + ((ys - 100) / 80) ** 2 < 1
    polygon = read_config(CONFIG)[2]
    exact, editable = (region(polygon, mask, tolerance)["value"]["points"] for tolerance in (0, EDITABLE_PX))
    assert len(exact) > 200
    assert len(editable) <= 40


def test_without_a_host_nothing_is_fetched():
    with running() as server, httpx.Client(base_url=f"{server.url}/label-studio") as client:
        assert predict(client, "/data/a.png").status_code == 422
        assert predict(client, DATA).status_code == 200
