"""segrl demo: a page to try policies on pictures."""

from __future__ import annotations

from typing import Annotated

import typer

FINISH_SECONDS = 10.0


def demo(
    policy: Annotated[
        list[str] | None, typer.Option(help="tiny, a directory, or a name on the hub; given twice, two side by side.")
    ] = None,
    segmenter: Annotated[str | None, typer.Option(help="Default: the one that fits each policy.")] = None,
    answer_format: Annotated[str | None, typer.Option(help="Default: each policy's own.")] = None,
    device: Annotated[str | None, typer.Option(help="Default: the first GPU, or the CPU.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer of a policy.")] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 serves every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 7860,
) -> None:
    """Open a page: ask about a picture, watch the reasoning, correct boxes and points, take the masks along."""
    from segrl.cli.web_extra import needs_web
    from segrl.log_filters import quieten

    needs_web()
    import segrl
    from segrl.web.demo.app import create_app
    from segrl.web.run import bind, serve

    names = list(dict.fromkeys(policy or ["tiny"]))
    with bind(host, port) as place:
        quieten()
        models = {
            name: segrl.load(
                name, segmenter=segmenter, answer_format=answer_format, device=device, max_new_tokens=max_new_tokens
            )
            for name in names
        }
        place.listen()  # from here on nobody is turned away
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"{' and '.join(names)} on http://{shown}:{place.getsockname()[1]}  (Ctrl-C stops)")
        serve(create_app(models), place, finish_seconds=FINISH_SECONDS)
