"""segrl serve-reward: a recipe's reward over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segrl.cli import web_extra as web

if TYPE_CHECKING:
    from fastapi import FastAPI


def serve_reward(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe with method: grpo.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Entries put in place of the recipe's.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Which stage of a recipe with several rewards.")] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8321,
    token: web.Token = None,
    device: Annotated[
        list[str] | None, typer.Option(metavar="DEVICE", help="Where a SAM runs, for instance cuda:0; once per GPU.")
    ] = None,
    places: web.Places = 256,
    places_per_client: web.PlacesPerClient = None,
    max_mb: web.MaxMb = 64,
    max_memory_mb: web.MaxMemoryMb = 2048,
    max_rows: Annotated[int, typer.Option(min=1, help="Completions of one request.")] = 4096,
    max_text_chars: Annotated[int, typer.Option(min=1, help="Characters of one completion.")] = 100_000,
    max_items: web.MaxItems = 20_000,
    max_depth: web.MaxDepth = 32,
    max_digits: web.MaxDigits = 100,
    timeout: web.Timeout = 600,
) -> None:
    """Score completions for other trainers: POST /score, batched across callers (docs/other_trainers.md)."""
    web.needs_web()
    from segrl.integrations import from_recipe
    from segrl.web.limits import ServerSettings
    from segrl.web.reward_server import make_app

    limits = web.limits_of(
        max_mb=max_mb, max_memory_mb=max_memory_mb, max_rows=max_rows, max_text_chars=max_text_chars,
        max_items=max_items, max_depth=max_depth, max_digits=max_digits, seconds=timeout, places=places,
        places_per_client=places_per_client,
    )  # fmt: skip
    settings = ServerSettings(limits=limits, token=token)
    devices: list[str | None] = [*device] if device else [None]

    def make() -> FastAPI:
        rewards = [from_recipe(recipe, overrides or (), stage=stage, device=one) for one in devices]
        return make_app(rewards, name=recipe.name, settings=settings)

    where = ", ".join(device or ["the default device"])
    web.run_server(
        host, port, seconds=timeout, warn=token is None, make_app=make,
        says=lambda url: f"reward of {recipe} on {where}: {url}/score",
    )  # fmt: skip
