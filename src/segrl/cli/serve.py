"""segrl serve: masks over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from segrl.cli import web_extra as web

if TYPE_CHECKING:
    from fastapi import FastAPI


def serve(
    policy: Annotated[str, typer.Option(help="tiny, a directory, or a name on the hub.")] = "tiny",
    segmenter: Annotated[str | None, typer.Option(help="Default: the one that fits the policy.")] = None,
    answer_format: Annotated[str | None, typer.Option(help="Default: the policy's own.")] = None,
    reading: web.Reading = "lenient",
    device: Annotated[str | None, typer.Option(help="Default: the first GPU, or the CPU.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer of the policy.")] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 serves every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    token: web.Token = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Queries answered together.")] = 8,
    places: web.Places = 64,
    places_per_client: web.PlacesPerClient = None,
    max_mb: web.MaxMb = 32,
    max_memory_mb: web.MaxMemoryMb = 2048,
    max_megapixels: web.MaxMegapixels = 25,
    max_mask_megapixels: web.MaxMaskMegapixels = 400,
    max_queries: Annotated[int, typer.Option(min=1, help="Queries of one request.")] = 16,
    max_query_chars: Annotated[int, typer.Option(min=1, help="Characters of one query.")] = 1000,
    max_prompts: web.MaxPrompts = 64,
    max_items: web.MaxItems = 20_000,
    max_depth: web.MaxDepth = 32,
    max_digits: web.MaxDigits = 100,
    timeout: web.Timeout = 120,
    allow_origin: Annotated[list[str] | None, typer.Option(help="A web page's origin that may ask.")] = None,
    label_studio_url: Annotated[str | None, typer.Option(help="The one host that images are fetched from.")] = None,
    label_studio_key: Annotated[
        str | None, typer.Option(envvar="LABEL_STUDIO_API_KEY", help="Personal access token of that Label Studio.")
    ] = None,
    polygon_tolerance: Annotated[
        float, typer.Option(min=0, help="Pixels that Label Studio's polygons may be off the mask; 0: exact.")
    ] = 1.25,
) -> None:
    """Serve masks over HTTP: POST /v1/segment, POST /v1/masks, and a Label Studio ML backend; /docs has the API."""
    web.needs_web()
    import segrl
    from segrl.web.app import create_app
    from segrl.web.limits import ServerSettings

    limits = web.limits_of(
        max_mb=max_mb, max_memory_mb=max_memory_mb, max_megapixels=max_megapixels,
        max_mask_megapixels=max_mask_megapixels, max_queries=max_queries, max_query_chars=max_query_chars,
        max_prompts=max_prompts, max_items=max_items, max_depth=max_depth, max_digits=max_digits, seconds=timeout,
        places=places, places_per_client=places_per_client,
    )  # fmt: skip
    settings = ServerSettings(
        limits=limits, batch_size=batch_size, token=token, label_studio_url=label_studio_url,
        label_studio_key=label_studio_key, polygon_tolerance_px=polygon_tolerance,
        allow_origins=tuple(allow_origin or ()),
    )  # fmt: skip
    options = {"segmenter": segmenter, "answer_format": answer_format, "device": device}

    def make_app() -> FastAPI:
        return create_app(segrl.load(policy, reading=reading, max_new_tokens=max_new_tokens, **options), settings)

    web.run_server(
        host, port, seconds=timeout, warn=token is None, make_app=make_app,
        says=lambda url: f"serving {policy} on {url}  (API: /docs; Ctrl-C stops)",
    )  # fmt: skip
