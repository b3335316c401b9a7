"""`segrl serve` over a policy that answers at once: a process of its own, to be attacked. Prints its address."""

from __future__ import annotations

import json
import sys

from PIL import Image
from serving import EchoPolicy

from segrl import segmenters
from segrl.pipeline import Pipeline, make_text_to_masks
from segrl.web.app import create_app
from segrl.web.limits import Limits, ServerSettings
from segrl.web.run import bind, serve


def main() -> None:
    """Serves with the limits that stand as JSON in the first argument."""
    limits = Limits(**json.loads(sys.argv[1]))
    policy = EchoPolicy()
    model = Pipeline(policy, make_text_to_masks(policy, segmenters.load("box")))
    model.segment(Image.new("RGB", (9, 9)), "box 0 0 5 5")  # what is loaded late is loaded now
    app = create_app(model, ServerSettings(limits=limits, recent_bytes=32 * 2**20))
    with bind("127.0.0.1", 0) as place:
        place.listen()
        print(f"http://127.0.0.1:{place.getsockname()[1]}", flush=True)
        serve(app, place, finish_seconds=limits.seconds)


if __name__ == "__main__":
    main()
