"""segrl serve, serve-reward and demo: three servers, which share their options, limits and address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from segrl.cli.common import (
    AnswerFormat,
    Base,
    Device,
    MaxNewTokens,
    PolicyName,
    Samples,
    SecondLook,
    Seed,
    SegmenterName,
    Temperature,
    Turns,
    VoteRules,
    decoding_values,
)
from segrl.errors import SegrlError
from segrl.tiny import DEFAULT_POLICY

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

    from segrl.web.limits import Limits

MODULES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "httpx", "gradio")
LOOPBACK = ("127.0.0.1", "localhost", "::1")

Policies = Annotated[
    list[str] | None,
    typer.Option(help="tiny-photos, tiny-scenes, words, a directory, a name on the hub; repeated: side by side."),
]
Reading = Annotated[
    Literal["lenient", "strict"],
    typer.Option(
        help="How answers are parsed: lenient repairs malformed ones and lists the repairs, strict is as in training."
    ),
]
Token = Annotated[
    str | None, typer.Option(envvar="SEGRL_TOKEN", help="Token that clients must send as Authorization: Bearer TOKEN.")
]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 accepts connections from other machines.")]
Places = Annotated[int, typer.Option(min=1, help="Concurrent requests; further ones get 503 with Retry-After.")]
PlacesPerClient = Annotated[
    int | None,
    typer.Option(
        min=1, help="Concurrent requests of one client address; further ones get 429 [default: 3/4 of --places]."
    ),
]
MaxMb = Annotated[float, typer.Option(min=0.01, help="Maximum size of a request body, in megabytes.")]
MaxMemoryMb = Annotated[
    float, typer.Option(min=1, help="Memory for the bodies and images of all open requests, in megabytes.")
]
MaxMegapixels = Annotated[float, typer.Option(min=0.001, help="Maximum size of an image, in megapixels.")]
MaxMaskMegapixels = Annotated[float, typer.Option(min=0.001, help="Megapixels of all masks of one answer together.")]
MaxSamples = Annotated[int, typer.Option(min=1, help="Maximum number of samples that a request may ask for.")]
MaxQueryChars = Annotated[int, typer.Option(min=1, help="Maximum length of a query in characters.")]
MaxPrompts = Annotated[int, typer.Option(min=1, help="Maximum number of mask prompts (boxes, points) per request.")]
MaxItems = Annotated[int, typer.Option(min=100, help="Maximum number of values in a JSON body.")]
MaxDepth = Annotated[int, typer.Option(min=4, help="Maximum nesting depth of a JSON body.")]
MaxDigits = Annotated[int, typer.Option(min=20, help="Maximum number of digits of a number in a JSON body.")]
PolygonTolerance = Annotated[
    float, typer.Option(min=0, help="Tolerance in pixels of polygons for Label Studio; 0: exact.")
]
LabelStudioKey = Annotated[
    str | None, typer.Option(envvar="LABEL_STUDIO_API_KEY", help="Personal access token of Label Studio.")
]
Timeout = Annotated[
    float, typer.Option(min=0.1, help="Seconds that a request may take, and that shutdown may take after SIGTERM.")
]


def serve(
    policy: PolicyName = DEFAULT_POLICY,
    segmenter: SegmenterName = None,
    answer_format: AnswerFormat = None,
    base: Base = None,
    reading: Reading = "lenient",
    device: Device = None,
    max_new_tokens: MaxNewTokens = None,
    samples: Samples = 1,
    temperature: Temperature = None,
    seed: Seed = 0,
    second_look: SecondLook = False,
    turns: Turns = 1,
    vote: VoteRules = None,
    max_samples: MaxSamples = 16,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    token: Token = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Queries generated together.")] = 8,
    places: Places = 64,
    places_per_client: PlacesPerClient = None,
    max_mb: MaxMb = 32,
    max_memory_mb: MaxMemoryMb = 2048,
    max_megapixels: MaxMegapixels = 25,
    max_mask_megapixels: MaxMaskMegapixels = 400,
    max_queries: Annotated[int, typer.Option(min=1, help="Maximum number of queries per request.")] = 16,
    max_query_chars: MaxQueryChars = 1000,
    max_prompts: MaxPrompts = 64,
    max_items: MaxItems = 20_000,
    max_depth: MaxDepth = 32,
    max_digits: MaxDigits = 100,
    timeout: Timeout = 120,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="Origin of a web page that may send requests (CORS); may be repeated.")
    ] = None,
    label_studio_url: Annotated[
        str | None, typer.Option(help="Address of Label Studio, the only host that images are fetched from.")
    ] = None,
    label_studio_key: LabelStudioKey = None,
    polygon_tolerance: PolygonTolerance = 1.25,
) -> None:
    """Serve masks over HTTP: POST /v1/segment, POST /v1/masks, and a Label Studio ML backend. /docs shows the API."""
    limits = limits_of(locals(), seconds=timeout)
    import segrl
    from segrl.web.app import create_app
    from segrl.web.limits import ServerSettings

    settings = ServerSettings(
        limits=limits, batch_size=batch_size, token=token, label_studio_url=label_studio_url,
        label_studio_key=label_studio_key, polygon_tolerance_px=polygon_tolerance,
        allow_origins=tuple(allow_origin or ()),
    )  # fmt: skip
    options = load_options(locals()) | {"base": base}
    run_server(
        host, port, seconds=timeout, warn=token is None,
        make_app=lambda: create_app(segrl.load(policy, **options), settings),
        says=lambda url: f"serving {policy} on {url}  (API: /docs; Ctrl-C stops)",
    )  # fmt: skip


def serve_reward(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe with method: grpo.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of the recipe's entries.")
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="Stage of a recipe whose reward is served, if several have one.")
    ] = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8321,
    token: Token = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DEVICE", help="Device of the segmenter, for instance cuda:0; may be repeated, one per GPU."
        ),
    ] = None,
    places: Places = 256,
    places_per_client: PlacesPerClient = None,
    max_mb: MaxMb = 64,
    max_memory_mb: MaxMemoryMb = 2048,
    max_rows: Annotated[int, typer.Option(min=1, help="Maximum number of completions per request.")] = 4096,
    max_text_chars: Annotated[int, typer.Option(min=1, help="Maximum length of a completion in characters.")] = 100_000,
    max_items: MaxItems = 20_000,
    max_depth: MaxDepth = 32,
    max_digits: MaxDigits = 100,
    timeout: Timeout = 600,
) -> None:
    """Serve a recipe's reward to other trainers: POST /score (docs/other_trainers.md)."""
    limits = limits_of(locals(), seconds=timeout)
    from segrl.integrations import from_recipe
    from segrl.web.limits import ServerSettings
    from segrl.web.reward_server import make_app

    settings = ServerSettings(limits=limits, token=token)
    devices: list[str | None] = [*device] if device else [None]

    def make() -> FastAPI:
        rewards = [from_recipe(recipe, overrides or (), stage=stage, device=one) for one in devices]
        return make_app(rewards, name=recipe.name, settings=settings)

    where = ", ".join(device or ["the default device"])
    run_server(
        host, port, seconds=timeout, warn=token is None, make_app=make,
        says=lambda url: f"reward of {recipe} on {where}: {url}/score",
    )  # fmt: skip


def demo(
    policy: Policies = None,
    segmenter: SegmenterName = None,
    answer_format: AnswerFormat = None,
    base: Base = None,
    reading: Reading = "lenient",
    device: Device = None,
    max_new_tokens: MaxNewTokens = None,
    samples: Samples = 1,
    temperature: Temperature = None,
    seed: Seed = 0,
    second_look: SecondLook = False,
    turns: Turns = 1,
    vote: VoteRules = None,
    max_samples: MaxSamples = 16,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 7860,
    places: Places = 64,
    places_per_client: PlacesPerClient = None,
    max_mb: MaxMb = 32,
    max_memory_mb: MaxMemoryMb = 512,
    max_kept_mb: Annotated[
        float, typer.Option(min=1, help="Memory for results, and the same for images, in megabytes.")
    ] = 512,
    max_disk_mb: Annotated[
        float, typer.Option(min=1, help="Disk space for uploads, which are deleted after a day, in megabytes.")
    ] = 2048,
    max_megapixels: MaxMegapixels = 25,
    max_mask_megapixels: MaxMaskMegapixels = 400,
    max_query_chars: MaxQueryChars = 1000,
    max_prompts: MaxPrompts = 64,
    max_items: MaxItems = 20_000,
    max_depth: MaxDepth = 32,
    max_digits: MaxDigits = 100,
    upload_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that an upload may take.")] = 120,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that shutdown may take after SIGTERM.")] = 10,
) -> None:
    """Serve a web page: ask about an image, read the reasoning, correct boxes and points, download masks."""
    limits = limits_of(locals(), seconds=upload_timeout)
    import segrl.loading
    from segrl.policies.checkpoint import is_adapter
    from segrl.web.demo.app import create_app

    names = list(dict.fromkeys(policy or [DEFAULT_POLICY]))
    options = load_options(locals())

    def make_app() -> FastAPI:
        # The policy beside an adapter is often its base.
        bases = {name: base if len(names) == 1 or is_adapter(name) else None for name in names}
        models = {name: segrl.load(name, base=bases[name], **options) for name in names}
        kept, disk = round(max_kept_mb * 2**20), round(max_disk_mb * 2**20)
        unasked = segrl.loading.drawing_segmenter(names, segmenter)
        return create_app(models, limits=limits, unasked=unasked, max_kept=kept, max_disk=disk)

    run_server(
        host, port, seconds=timeout, warn=True, make_app=make_app,
        says=lambda url: f"{' and '.join(names)} on {url}  (Ctrl-C stops)",
    )  # fmt: skip


def load_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `segrl.load` among a command's, but for policy and base."""
    drawn = ("samples", "temperature", "seed", "second_look", "vote", "turns")
    plain = ("segmenter", "answer_format", "device", "reading", "max_new_tokens")
    decoding = decoding_values(*(options[name] for name in drawn))
    return {name: options[name] for name in plain} | {"decoding": decoding}


SCALED = {
    "max_mb": ("max_bytes", 2**20),
    "max_memory_mb": ("max_memory", 2**20),
    "max_megapixels": ("max_pixels", 1e6),
    "max_mask_megapixels": ("max_mask_pixels", 1e6),
}
"""Options in larger units, the limit that each sets, and in how many of its units."""


def limits_of(options: Mapping[str, Any], seconds: float) -> Limits:
    """The limits among a command's options, which bear the names of `Limits` or of SCALED.

    Raises SegrlError with the line that adds the web extra if a part of it is missing.
    """
    missing = [module for module in MODULES if find_spec(module) is None]
    if missing:
        raise SegrlError(
            f"{missing[0]} is not installed: it comes with segrl's extra web (in a clone: pip install '.[web]')"
        )
    from segrl.web.limits import Limits

    plain = {field.name: options[field.name] for field in fields(Limits) if field.name in options}
    scaled = {limit: round(options[name] * unit) for name, (limit, unit) in SCALED.items() if name in options}
    return Limits(**plain, **scaled, seconds=seconds)


def run_server(
    host: str, port: int, *, seconds: float, warn: bool, make_app: Callable[[], FastAPI], says: Callable[[str], str]
) -> None:
    """Takes the address, makes the application, prints `says(address)` and serves until it is told to stop.

    warn: say that everybody may ask, where the address is not this machine's own.
    """
    from segrl.errors import quieten
    from segrl.web.app import bind, serve

    with bind(host, port) as place:
        quieten()
        app = make_app()
        place.listen()  # from here on nobody is turned away
        shown = f"[{host}]" if ":" in host else host
        typer.echo(says(f"http://{shown}:{place.getsockname()[1]}"))
        if warn and host not in LOOPBACK:
            typer.echo("warning: anyone who can reach this address may use it (docs/security.md)", err=True)
        serve(app, place, finish_seconds=seconds)
