"""segrl serve-reward: a recipe's reward over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve_reward(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe with method: grpo.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Entries put in place of the recipe's.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Which stage of a recipe with several rewards.")] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in; there is no password.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8321,
    device: Annotated[
        list[str] | None, typer.Option(metavar="DEVICE", help="Where a SAM runs, for instance cuda:0; once per GPU.")
    ] = None,
) -> None:
    """Score completions for other trainers: POST /score, batched across callers (docs/other_trainers.md)."""
    from segrl.errors import SegrlError

    try:
        import uvicorn

        from segrl.web.reward_server import make_app
    except ImportError as error:
        raise SegrlError(f"serve-reward needs the web extra ({error}): pip install 'segrl[web]'") from error
    from segrl.integrations import from_recipe

    places: list[str | None] = [*device] if device else [None]
    rewards = [from_recipe(recipe, overrides or (), stage=stage, device=place) for place in places]
    typer.echo(f"reward of {recipe} on {', '.join(device or ['the default device'])}: http://{host}:{port}/score")
    uvicorn.run(make_app(rewards, name=str(recipe)), host=host, port=port, log_level="warning")
