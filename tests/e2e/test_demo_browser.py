"""The demo page in a real browser, at a laptop's and a phone's width, in light and dark.

Screenshots are kept under runs/screenshots (or in $SEGRL_SCREENSHOTS).
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from scripted import ScriptedPolicy
from serving import listening

from segrl import answers, segmenters
from segrl.images import content_id
from segrl.loading import make_text_to_masks
from segrl.pipeline import Pipeline
from segrl.tiny.scenes import TinyScenes
from segrl.types import ORIGINAL

ROOT = Path(__file__).parents[2]
SCREENSHOTS = Path(os.environ.get("SEGRL_SCREENSHOTS") or ROOT / "runs" / "screenshots")
CHROMIUM = os.environ.get("SEGRL_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
SCENES = list(TinyScenes(3, 9_502))
WAIT = 60_000

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="needs Debian's chromium"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


def scripted(name: str) -> Pipeline:
    """Boxes the target of the scene that is asked about; `unicorn` is not there, `riddle` is not understood."""
    written = answers.get("seg-r1")

    def key(image: Image.Image, prompt: str) -> str:
        return next((word for word in ("unicorn", "riddle") if word in prompt), content_id(image))

    texts = {content_id(scene.image): written.render([tight(scene)], f"{name} sees {scene.query}.") for scene in SCENES}
    texts |= {"unicorn": written.render([], "No such animal."), "riddle": "I would rather not say."}
    policy = ScriptedPolicy(texts, key=key, frame=ORIGINAL)
    return Pipeline(policy, make_text_to_masks(policy, segmenters.load("grabcut")))


def tight(scene):
    """The gold prompt of a scene, whose numbers are its own pixels."""
    from segrl.masks import mask_to_box
    from segrl.types import MaskPrompt

    box = mask_to_box(scene.truth)
    ys, xs = np.nonzero(scene.truth)
    middle = len(xs) // 2
    return MaskPrompt(box, ((float(xs[middle]), float(ys[middle])),), (1,), ORIGINAL)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    from segrl.web.demo.app import create_app

    app = create_app(
        {"first": scripted("first"), "second": scripted("second")}, [(scene.image, scene.query) for scene in SCENES]
    )
    with listening(app, patience=2) as (port, _):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    assert CHROMIUM is not None
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


LAPTOP = {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "color_scheme": "dark",
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}


class Visit:
    """One visitor's page."""

    def __init__(self, browser, url: str, name: str, options: dict) -> None:
        self.context = browser.new_context(**options)
        self.page, self.name, self.hosts = self.context.new_page(), name, set[str]()
        self.page.set_default_timeout(WAIT)
        self.page.on("request", lambda request: self.hosts.add(httpx.URL(request.url).host))
        self.page.goto(f"{url}/?__theme={options['color_scheme']}")
        self.url = url
        self.editor = self.page.locator(".editor").first
        self.page.locator("#examples button").first.wait_for()
        self.editor.wait_for()  # Gradio loads the code of HTML parts by itself, later than that of buttons

    def shoot(self, what: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{self.name}-{what}.png", full_page=True)

    def take_example(self, index: int) -> None:
        self.page.locator("#examples button").nth(index).click()
        self.said("found")

    def said(self, kind: str, n: int = 2) -> None:
        """Waits until both panels say so."""
        self.page.wait_for_function(f"document.querySelectorAll('.segrl-{kind}').length === {n}")
        self.page.wait_for_timeout(600)

    @property
    def shown(self) -> str:
        return self.editor.get_attribute("data-shown") or ""

    def layer(self) -> np.ndarray:
        """What the editor draws over the picture, as a mask."""
        data = httpx.get(f"{self.url}/{self.shown}layer.png", timeout=60).content
        return np.asarray(Image.open(io.BytesIO(data)))[..., 3] > 0

    def download(self) -> np.ndarray:
        """The mask that the page gives."""
        with self.page.expect_download() as waiting:
            self.editor.locator("[data-file='mask.png']").click()
        return np.asarray(Image.open(waiting.value.path())) > 127

    def edit(self, act) -> None:
        """Does something and waits for the new mask."""
        before = self.shown
        act()
        self.page.wait_for_function("before => document.querySelector('.editor').dataset.shown !== before", arg=before)

    def tap(self, x: float, y: float) -> None:
        """A click at a place of the picture, in its pixels."""
        canvas = self.editor.locator("canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        self.page.mouse.click(box["x"] + (x + 0.5) / 112 * box["width"], box["y"] + (y + 0.5) / 112 * box["height"])

    def fits(self) -> bool:
        return self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")


@pytest.fixture(scope="module", params=["laptop", "phone"])
def visit(request, browser, url):
    one = Visit(browser, url, request.param, LAPTOP if request.param == "laptop" else PHONE)
    yield one
    one.context.close()


def off_the_object(mask: np.ndarray) -> tuple[int, int]:
    """The place of the mask that is furthest from the prompt's point, its middle one."""
    ys, xs = np.nonzero(mask)
    far = np.argmax((xs - xs[len(xs) // 2]) ** 2 + (ys - ys[len(ys) // 2]) ** 2)
    return int(xs[far]), int(ys[far])


def test_a_visit(visit):
    assert visit.fits()
    visit.shoot("1-start")
    visit.take_example(0)
    found = visit.layer()
    assert found.any()
    assert visit.editor.get_attribute("data-masks") == "1"
    np.testing.assert_array_equal(visit.download(), found)
    assert "first sees" in visit.page.locator("textarea").nth(1).input_value()
    visit.shoot("2-example")

    visit.editor.locator("[data-tool='off']").click()
    visit.edit(lambda: visit.tap(*off_the_object(found)))
    edited = visit.layer()
    assert (edited != found).any()
    np.testing.assert_array_equal(visit.download(), edited)
    visit.shoot("3-edited")

    visit.edit(lambda: visit.editor.locator("[data-do='undo']").click())
    np.testing.assert_array_equal(visit.layer(), found)
    assert visit.fits()


def test_nothing_here_and_unreadable_are_told_plainly(visit):
    query = visit.page.locator("#query textarea")
    query.fill("the unicorn")
    query.press("Enter")
    visit.said("none")
    assert "Nothing here" in visit.page.locator(".segrl-none").first.inner_text()
    query.fill("a riddle")
    visit.page.locator("#ask").click()
    visit.said("unread")
    assert "could not be read" in visit.page.locator(".segrl-unread").first.inner_text()
    visit.shoot("4-unread")
    assert "a riddle: not readable" in visit.page.locator("#history").inner_text()
    assert "None of the policies" in visit.page.locator("#compared").inner_text()
    visit.page.locator("#history label").last.click()
    visit.said("found")
    assert visit.layer().any()
    assert visit.page.locator("#query textarea").input_value() == SCENES[0].query
    visit.page.locator("#compared .segrl-same").wait_for()


def test_the_keyboard_alone(visit):
    canvas = visit.editor.locator("canvas")
    canvas.focus()
    page = visit.page
    visit.edit(lambda: (page.keyboard.press("s"), page.keyboard.press("Delete")))
    visit.edit(lambda: (page.keyboard.press("s"), page.keyboard.press("Delete")))
    assert not visit.layer().any()
    visit.edit(lambda: page.keyboard.press("b"))
    boxed = visit.layer()
    visit.edit(lambda: (page.keyboard.press("Shift+ArrowRight"), page.keyboard.press("Shift+ArrowRight")))
    assert (visit.layer() != boxed).any()
    visit.shoot("5-keyboard")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.file") == "mask.png"


def test_a_box_is_drawn_with_the_pointer(visit):
    visit.editor.locator("[data-do='add']").click()
    visit.edit(lambda: drag_box(visit, 0.2, 0.6))
    visit.shoot("6-box")
    assert visit.editor.get_attribute("data-masks") == "2"


def mask_of_box(box: tuple[float, float, float, float]) -> np.ndarray:
    """What the segmenter makes of a box on the first scene."""
    from segrl.types import MaskPrompt

    return scripted("alone").masks(SCENES[0].image, [MaskPrompt(box)]).mask


def settled(visit) -> None:
    """Waits until no edit is on its way."""
    visit.page.wait_for_function("document.querySelector('.editor').dataset.edits === 'done'")


def test_the_last_edit_wins_however_fast_they_come(visit):
    visit.take_example(0)
    found = visit.layer()
    canvas = visit.editor.locator("canvas")
    page = visit.page
    for _ in range(3):
        canvas.focus()
        for key in ("n", "b", "+", "-", "Control+z", "b", "Shift+ArrowLeft", "+", "Control+z", "Control+z"):
            page.keyboard.press(key)
        for _ in range(12):
            page.keyboard.press("Control+z")
        settled(visit)
        np.testing.assert_array_equal(visit.layer(), found)
        np.testing.assert_array_equal(visit.download(), found)
    canvas.focus()
    for key in ("n", "b", "+", "Control+z", "Control+Shift+z"):
        page.keyboard.press(key)
    settled(visit)
    redone = visit.layer()
    assert (redone != found).any()
    np.testing.assert_array_equal(visit.download(), redone)


@pytest.fixture
def drawing(browser, url, tmp_path):
    """A visitor who has uploaded a picture and asked nothing."""
    path = tmp_path / "my cat.png"
    SCENES[0].image.save(path)
    visit = Visit(browser, url, "draw", LAPTOP)
    visit.page.locator("#upload input[type=file]").set_input_files(path)
    visit.page.wait_for_function("document.querySelector('.editor').dataset.shown")
    visit.editor.locator("canvas").scroll_into_view_if_needed()
    yield visit
    visit.context.close()


def at(visit, x: float, y: float) -> tuple[float, float]:
    """Where on the screen a place of the picture is, given as shares of its sides."""
    box = visit.editor.locator("canvas").bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def drag_box(visit, low: float, high: float) -> None:
    visit.editor.locator("[data-tool='box']").click()
    visit.editor.locator("canvas").scroll_into_view_if_needed()
    visit.page.mouse.move(*at(visit, low, low))
    visit.page.mouse.down()
    visit.page.mouse.move(*at(visit, high, high))
    visit.page.mouse.up()


def test_a_box_a_point_and_undo_within_half_a_second_leave_the_box(drawing):
    for _ in range(3):
        drag_box(drawing, 0.2, 0.6)
        drawing.editor.locator("[data-tool='on']").click()
        drawing.page.mouse.click(*at(drawing, 0.3, 0.5))
        drawing.editor.locator("[data-do='undo']").click()
        settled(drawing)
        boxed = mask_of_box((22, 22, 67, 67))
        np.testing.assert_array_equal(drawing.layer(), boxed)
        np.testing.assert_array_equal(drawing.download(), boxed)
        drawing.editor.locator("[data-do='undo']").click()
        drawing.editor.locator("[data-do='redo']").click()
        settled(drawing)
        np.testing.assert_array_equal(drawing.download(), boxed)


def test_an_edit_that_got_lost_on_its_way_is_sent_again(drawing):
    lost = []

    def lose(route):
        lost.append(route.request.post_data)
        route.fulfill(json={"event_id": "lost"})

    drawing.page.route("**/queue/join*", lose, times=1)
    drag_box(drawing, 0.2, 0.6)
    settled(drawing)
    assert len(lost) == 1
    np.testing.assert_array_equal(drawing.layer(), mask_of_box((22, 22, 67, 67)))


def test_answers_whose_stream_was_closed_still_come(drawing):
    """Every second stream of answers that the page opens is closed at once: what it should have told waits."""
    opened, over = [], 'data: {"msg": "close_stream"}\n\n'

    def close(route):
        opened.append(route)
        route.fulfill(body=over, content_type="text/event-stream") if len(opened) % 2 else route.continue_()

    drawing.page.route("**/queue/data*", close)
    drawing.page.locator("#query textarea").fill("unicorn")
    drawing.page.locator("#ask").click()
    drawing.said("none")
    drawing.page.locator("#history label").wait_for()
    drawing.page.locator("#compared .segrl-line").wait_for()


def test_a_point_is_previewed_under_the_pointer_and_nothing_is_kept_of_it(drawing):
    drawing.editor.locator("[data-tool='on']").click()
    before, drawn = drawing.shown, "document.querySelector('.editor canvas').toDataURL()"
    plain = drawing.page.evaluate(drawn)
    drawing.page.mouse.move(*at(drawing, 0.5, 0.5))
    drawing.page.wait_for_function("document.querySelector('.editor').dataset.preview === 'shown'")
    assert drawing.shown == before
    assert drawing.editor.get_attribute("data-masks") == "0"
    assert drawing.page.evaluate(drawn) != plain
    drawing.page.mouse.move(1, 1)
    drawing.page.wait_for_function("!('preview' in document.querySelector('.editor').dataset)")
    assert drawing.page.evaluate(drawn) == plain
    drawing.edit(lambda: drawing.page.mouse.click(*at(drawing, 0.5, 0.5)))
    assert drawing.editor.get_attribute("data-masks") == "1"


def test_one_of_several_objects_is_cleared(drawing):
    drag_box(drawing, 0.1, 0.4)
    settled(drawing)
    drawing.editor.locator("[data-do='add']").click()
    drag_box(drawing, 0.5, 0.9)
    settled(drawing)
    assert drawing.editor.get_attribute("data-masks") == "2"
    drawing.edit(lambda: drawing.editor.locator("[data-do='clear']").click())
    settled(drawing)
    assert drawing.editor.get_attribute("data-masks") == "1"
    np.testing.assert_array_equal(drawing.layer(), mask_of_box((11, 11, 45, 45)))
    drawing.edit(lambda: drawing.editor.locator("[data-do='undo']").click())
    settled(drawing)
    assert drawing.editor.get_attribute("data-masks") == "2"


def test_boxes_are_drawn_before_any_question_is_asked(drawing):
    visit = drawing
    assert visit.editor.get_attribute("data-masks") == "0"
    visit.editor.locator("canvas").focus()
    visit.edit(lambda: visit.page.keyboard.press("b"))
    settled(visit)
    assert visit.editor.get_attribute("data-masks") == "1"
    low, high = round(112 / 2 - 112 / 6), round(112 / 2 + 112 / 6)
    np.testing.assert_array_equal(visit.layer(), mask_of_box((low, low, high, high)))
    with visit.page.expect_download() as waiting:
        visit.editor.locator("[data-file='mask.png']").click()
    assert waiting.value.suggested_filename.endswith("cat-mask.png")
    visit.shoot("7-drawn")


def test_the_page_asks_no_other_host(visit):
    assert visit.hosts <= {"127.0.0.1", ""}
