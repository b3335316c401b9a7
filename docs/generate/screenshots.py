"""Takes the picture of `segrl demo` that the tour shows.

    python docs/generate/screenshots.py

It starts the page on a free port of this machine, asks the tiny policy about an example in Chromium, puts a point off
the object by hand, and keeps what is seen then. Needs `make install` and Chromium (Debian's, or $SEGRL_CHROMIUM).
"""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

OUT = Path(__file__).parents[1] / "images" / "demo.png"
SIZE = {"width": 1280, "height": 900}
EXAMPLE = 1
OFF = (0.43, 0.355)
"""Where the point off the object goes, as shares of the image's sides: into the hole of the ring."""
WAIT_MS = 300_000
COLOURS = 256


@contextmanager
def demo() -> Iterator[str]:
    """The address of a `segrl demo` that runs."""
    line = [Path(sys.executable).with_name("segrl"), "demo", "--policy", "tiny-scenes", "--port", "0"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = re.search(r"http://\S+", process.stdout.readline())
            if address is None:
                sys.exit("segrl demo did not start")
            yield address[0]
        finally:
            process.send_signal(signal.SIGTERM)


def visit(page: Page, url: str) -> bytes:
    """A PNG of the page after an answer was corrected."""
    page.set_default_timeout(WAIT_MS)
    page.goto(f"{url}/?__theme=light")
    page.locator("#examples button").nth(EXAMPLE).click()
    page.locator(".segrl-found").wait_for()
    editor = page.locator(".editor")
    editor.locator("[data-tool='off']").click()
    canvas = editor.locator("canvas").bounding_box()
    assert canvas is not None
    before = editor.get_attribute("data-shown")
    page.mouse.click(canvas["x"] + OFF[0] * canvas["width"], canvas["y"] + OFF[1] * canvas["height"])
    page.wait_for_function("before => document.querySelector('.editor').dataset.shown !== before", arg=before)
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(1000)
    return page.screenshot()


def main() -> None:
    """Writes images/demo.png."""
    chromium = os.environ.get("SEGRL_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("no Chromium: install Debian's package chromium, or name one with SEGRL_CHROMIUM")
    with demo() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        seen = visit(browser.new_page(viewport=SIZE), url)
        browser.close()
    Image.open(io.BytesIO(seen)).convert("RGB").quantize(COLOURS, kmeans=3).save(OUT, optimize=True)
    print(f"{OUT}: {OUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
