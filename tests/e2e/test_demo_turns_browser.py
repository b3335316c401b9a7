"""Turns and words on the demo page in a real browser: the strip, a person who takes over, a phrase and an example.

Screenshots are kept where test_demo_browser.py keeps its own.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from demo_panel import in_loop
from folder_runs import TEXTS, Turning
from PIL import Image
from serving import listening
from word_scene import scene

import segrl
from segrl import segmenters
from segrl.inference import Decoding
from segrl.loading import make_text_to_masks
from segrl.pipeline import Pipeline

SCREENSHOTS = Path(os.environ.get("SEGRL_SCREENSHOTS") or Path(__file__).parents[2] / "runs" / "screenshots")
CHROMIUM = os.environ.get("SEGRL_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
WAIT = 60_000

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="needs Debian's chromium"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@contextmanager
def visiting(model: Pipeline) -> Iterator:
    """A page about `word_scene` over one policy."""
    from playwright.sync_api import sync_playwright

    from segrl.web.demo.app import create_app

    assert CHROMIUM is not None
    app = in_loop(lambda: create_app({"mine": model}, [(scene(), "the box")]))
    with listening(app, patience=2) as (port, _), sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_context(viewport={"width": 1280, "height": 800}).new_page()
        page.set_default_timeout(WAIT)
        page.goto(f"http://127.0.0.1:{port}/?__theme=light")
        page.locator("#examples button").first.wait_for()
        page.locator(".editor").first.wait_for()
        yield page
        chromium.close()


def shoot(page, what: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{what}.png", full_page=True)


def place(page, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the picture is on the page."""
    box = page.locator(".editor canvas").bounding_box()
    return box["x"] + (x + 0.5) / 160 * box["width"], box["y"] + (y + 0.5) / 120 * box["height"]


def settled(page) -> None:
    page.wait_for_function("document.querySelector('.editor').dataset.edits === 'done'")


def shows(page, *titles: str) -> None:
    """Waits until the strip has these turns and nothing is under way."""
    captions = "[...document.querySelectorAll('.segrl-turns figcaption')].map(one => one.innerText).join()"
    page.wait_for_function(
        f"wanted => {captions} === wanted && !document.querySelector('.segrl-busy')",
        arg=",".join(f"{i + 1}: {title}" for i, title in enumerate(titles)),
    )


def test_a_strip_of_turns_in_which_a_person_takes_over():
    policy = Turning(TEXTS, key=lambda image, prompt: "box")
    model = Pipeline(policy, make_text_to_masks(policy, segmenters.load("box")), decoding=Decoding(turns=3))
    with visiting(model) as page:
        assert page.locator("#turns input").first.input_value() == "3"
        page.locator("#examples button").first.click()
        shows(page, "answer", "answer", "more points")
        picture = Image.open(io.BytesIO(page.locator(".segrl-turns img").first.screenshot()))
        assert picture.width >= 100
        shoot(page, "turns-1-strip")
        page.locator("label", has_text="1: answer").click()
        page.wait_for_function("document.querySelector('.segrl-turns figure').classList.contains('shown')")
        before = page.locator(".editor").get_attribute("data-shown")
        page.locator(".editor [data-tool='off']").click()
        page.mouse.click(*place(page, 100, 100))
        page.wait_for_function("was => document.querySelector('.editor').dataset.shown !== was", arg=before)
        settled(page)
        page.locator("button", has_text="Let the model look and go on").click()
        shows(page, "answer", "by hand", "more points")
        shoot(page, "turns-2-taken-over")


def test_words_and_an_example_are_given_by_hand():
    with visiting(segrl.load("words", segmenter="shapes")) as page:
        page.locator("#examples button").first.click()  # asks "the box", which names no shape that there is
        page.locator(".segrl-none").wait_for()
        page.locator("[data-phrase]").fill("red")
        page.keyboard.press("Enter")
        page.wait_for_function("document.querySelector('.editor').dataset.masks === '2'")
        page.locator(".editor [data-do='add']").click()
        page.locator(".editor [data-tool='like']").click()
        page.mouse.move(*place(page, 66, 16))
        page.mouse.down()
        page.mouse.move(*place(page, 109, 59), steps=4)
        page.mouse.up()
        page.wait_for_function("document.querySelector('.editor').dataset.masks === '3'")
        settled(page)
        shoot(page, "words-by-hand")
        page.locator(".editor [data-do='undo']").click()
        page.wait_for_function("document.querySelector('.editor').dataset.masks === '2'")
