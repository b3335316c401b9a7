"""Masks over HTTP with nothing but Python's own library.

    segrl serve --policy tiny-scenes &
    python examples/http_client.py photo.jpg "the red star" http://127.0.0.1:8000

Prints a line for each object: its area in pixels, its box, and the segmenter's score.
"""

import base64
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path


def segment(server: str, photo: Path, query: str) -> dict:
    """The server's answer to one query about one picture (docs/http.md says what is in it)."""
    body = {"image": base64.b64encode(photo.read_bytes()).decode(), "query": [query]}
    headers = {"Content-Type": "application/json"}  # and Authorization: Bearer … for a server with --token
    request = urllib.request.Request(f"{server}/v1/segment", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)["results"][0]
    except urllib.error.HTTPError as error:
        sys.exit(f"the server refused: {error.code} {error.read().decode()}")


def main(photo: str, query: str, server: str = "http://127.0.0.1:8000") -> None:
    """Ask, and print what was found."""
    result = segment(server, Path(photo), query)
    print(f"{result['status']}: {result['reasoning'] or result['detail']}")
    for mask in result["masks"]:
        print(f"{mask['area']} pixels, box {mask['box_xyxy']}, score {mask['score']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
