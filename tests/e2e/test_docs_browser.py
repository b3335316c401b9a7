"""The documentation in a real browser, without a network: nothing is wider than the page, and the search finds."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = os.environ.get("SEGRL_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
WIDTHS = (1280, 390)
WAIT = 120_000

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="needs Debian's chromium"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing about it."""

    def log_message(self, *args: object) -> None:
        return None


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The site, built and served as docs/install.md says."""
    out = tmp_path_factory.mktemp("docs") / "site"
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    subprocess.run(line, cwd=ROOT, capture_output=True, check=True)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(out))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_every_page_fits_and_the_search_finds(url: str) -> None:
    from playwright.sync_api import sync_playwright

    hosts = set()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(WAIT)
        page.on("request", lambda request: hosts.add(request.url.split("/")[2].partition(":")[0]))
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 844})
            for source in sorted((ROOT / "docs").glob("*.md")):
                page.goto(f"{url}/{source.stem}.html")
                needed = page.evaluate("document.documentElement.scrollWidth")
                assert needed <= width, f"{source.name} is {needed} wide at {width}"
        page.set_viewport_size({"width": 1280, "height": 844})
        page.goto(f"{url}/index.html")
        page.locator(".md-search__input").press_sequentially("Retry-After")
        page.locator('.md-search-result__link[href*="http.html"]').first.wait_for()  # results follow the typing
        browser.close()
    assert hosts == {"127.0.0.1"}
