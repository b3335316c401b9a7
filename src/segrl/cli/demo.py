"""segrl demo: a page to try policies on pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from segrl.cli import web_extra as web

if TYPE_CHECKING:
    from fastapi import FastAPI


def demo(
    policy: Annotated[
        list[str] | None, typer.Option(help="tiny, a directory, or a name on the hub; given twice, two side by side.")
    ] = None,
    segmenter: Annotated[str | None, typer.Option(help="Default: the one that fits each policy.")] = None,
    answer_format: Annotated[str | None, typer.Option(help="Default: each policy's own.")] = None,
    reading: web.Reading = "lenient",
    device: Annotated[str | None, typer.Option(help="Default: the first GPU, or the CPU.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer of a policy.")] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 serves every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 7860,
    places: web.Places = 64,
    places_per_client: web.PlacesPerClient = None,
    max_mb: web.MaxMb = 32,
    max_memory_mb: web.MaxMemoryMb = 512,
    max_kept_mb: Annotated[float, typer.Option(min=1, help="Memory for results, and as much for pictures.")] = 512,
    max_disk_mb: Annotated[float, typer.Option(min=1, help="Uploads on the disk, deleted after a day.")] = 2048,
    max_megapixels: web.MaxMegapixels = 25,
    max_mask_megapixels: web.MaxMaskMegapixels = 400,
    max_query_chars: Annotated[int, typer.Option(min=1, help="Characters of one query.")] = 1000,
    max_prompts: web.MaxPrompts = 64,
    max_items: web.MaxItems = 20_000,
    max_depth: web.MaxDepth = 32,
    max_digits: web.MaxDigits = 100,
    upload_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that an upload may take.")] = 120,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds from SIGTERM to the end.")] = 10,
) -> None:
    """Open a page: ask about a picture, watch the reasoning, correct boxes and points, take the masks along."""
    web.needs_web()
    import segrl
    from segrl.web.demo.app import create_app

    limits = web.limits_of(
        max_mb=max_mb, max_memory_mb=max_memory_mb, max_megapixels=max_megapixels,
        max_mask_megapixels=max_mask_megapixels, max_query_chars=max_query_chars, max_prompts=max_prompts,
        max_items=max_items, max_depth=max_depth, max_digits=max_digits, seconds=upload_timeout, places=places,
        places_per_client=places_per_client,
    )  # fmt: skip
    names = list(dict.fromkeys(policy or ["tiny"]))
    options = {"segmenter": segmenter, "answer_format": answer_format, "device": device}

    def make_app() -> FastAPI:
        models = {name: segrl.load(name, reading=reading, max_new_tokens=max_new_tokens, **options) for name in names}
        kept, disk = round(max_kept_mb * 2**20), round(max_disk_mb * 2**20)
        return create_app(models, limits=limits, max_kept=kept, max_disk=disk)

    web.run_server(
        host, port, seconds=timeout, warn=True, make_app=make_app,
        says=lambda url: f"{' and '.join(names)} on {url}  (Ctrl-C stops)",
    )  # fmt: skip
