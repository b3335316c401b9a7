"""`segrl serve` or `segrl demo` over a policy that answers at once: a process of its own. Prints its address."""

from __future__ import annotations

import json
import sys

from fastapi import FastAPI
from PIL import Image
from serving import EchoPolicy

from segrl import segmenters
from segrl.loading import make_text_to_masks
from segrl.pipeline import Pipeline
from segrl.web.app import bind, serve
from segrl.web.limits import Limits, ServerSettings


def make(kind: str, limits: Limits) -> FastAPI:
    """The application; what its pipeline loads late is loaded."""
    policy = EchoPolicy()
    model = Pipeline(policy, make_text_to_masks(policy, segmenters.load("box")))
    model.segment(Image.new("RGB", (9, 9)), "box 0 0 5 5")
    if kind == "serve":
        from segrl.web.app import create_app

        return create_app(model, ServerSettings(limits=limits, recent_bytes=32 * 2**20))
    from segrl.web.demo.app import create_app as create_page

    return create_page({"echo": model}, [(Image.new("RGB", (40, 30)), "none")], limits, max_disk=600_000)


def main() -> None:
    """Serves what the first argument names, with the limits that stand as JSON in the second.

    The third is how many seconds it may take to stop; without it as many as a request.
    """
    limits = Limits(**json.loads(sys.argv[2]))
    app = make(sys.argv[1], limits)
    with bind("127.0.0.1", 0) as place:
        place.listen()
        print(f"http://127.0.0.1:{place.getsockname()[1]}", flush=True)
        serve(app, place, finish_seconds=float(sys.argv[3]) if len(sys.argv) > 3 else limits.seconds)


if __name__ == "__main__":
    main()
