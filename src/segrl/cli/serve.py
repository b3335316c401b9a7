"""segrl serve: masks over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    policy: Annotated[str, typer.Option(help="tiny, a directory, or a name on the hub.")] = "tiny",
    segmenter: Annotated[str | None, typer.Option(help="Default: the one that fits the policy.")] = None,
    answer_format: Annotated[str | None, typer.Option(help="Default: the policy's own.")] = None,
    device: Annotated[str | None, typer.Option(help="Default: the first GPU, or the CPU.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer of the policy.")] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 serves every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    token: Annotated[
        str | None, typer.Option(envvar="SEGRL_TOKEN", help="What clients must send as Authorization: Bearer TOKEN.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Queries answered together.")] = 8,
    places: Annotated[int, typer.Option(min=1, help="Requests open at once; more get 503 and Retry-After.")] = 64,
    max_mb: Annotated[float, typer.Option(min=0.01, help="Largest body of a request, in megabytes.")] = 32,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="Largest image.")] = 25,
    max_queries: Annotated[int, typer.Option(min=1, help="Queries of one request.")] = 16,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a request may take.")] = 120,
    allow_origin: Annotated[list[str] | None, typer.Option(help="A web page's origin that may ask.")] = None,
    label_studio_url: Annotated[str | None, typer.Option(help="The one host that images are fetched from.")] = None,
    label_studio_key: Annotated[
        str | None, typer.Option(envvar="LABEL_STUDIO_API_KEY", help="Access token of that Label Studio.")
    ] = None,
) -> None:
    """Serve masks over HTTP: POST /v1/segment, POST /v1/masks, and a Label Studio ML backend; /docs has the API."""
    from segrl.cli.web_extra import needs_web
    from segrl.log_filters import quieten

    needs_web()
    import segrl
    from segrl.web.app import create_app
    from segrl.web.limits import Limits, ServerSettings
    from segrl.web.run import bind
    from segrl.web.run import serve as run

    limits = Limits(
        max_bytes=round(max_mb * 2**20),
        max_pixels=round(max_megapixels * 1e6),
        max_queries=max_queries,
        seconds=timeout,
        places=places,
    )
    settings = ServerSettings(
        limits=limits,
        batch_size=batch_size,
        token=token,
        label_studio_url=label_studio_url,
        label_studio_key=label_studio_key,
        allow_origins=tuple(allow_origin or ()),
    )
    with bind(host, port) as place:
        quieten()
        pipeline = segrl.load(
            policy, segmenter=segmenter, answer_format=answer_format, device=device, max_new_tokens=max_new_tokens
        )
        place.listen()  # from here on nobody is turned away
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"serving {policy} on http://{shown}:{place.getsockname()[1]}  (API: /docs; Ctrl-C stops)")
        if token is None and host not in LOOPBACK:
            typer.echo("warning: everybody who reaches this address may use it; --token asks for one", err=True)
        run(create_app(pipeline, settings), place, finish_seconds=timeout)
