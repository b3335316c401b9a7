"""What the three servers have in common on the command line: the web extra, their limits, their address."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from segrl.errors import SegrlError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

    from segrl.web.limits import Limits

MODULES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "httpx", "gradio")
LOOPBACK = ("127.0.0.1", "localhost", "::1")

Reading = Annotated[
    Literal["lenient", "strict"],
    typer.Option(
        help="lenient keeps whole objects of broken answers and lists what was mended; strict as in training."
    ),
]
Token = Annotated[
    str | None, typer.Option(envvar="SEGRL_TOKEN", help="What clients must send as Authorization: Bearer TOKEN.")
]
Places = Annotated[int, typer.Option(min=1, help="Requests open at once; more get 503 and Retry-After.")]
PlacesPerClient = Annotated[
    int | None, typer.Option(min=1, help="Places that one address may hold (429 beyond). Default: three quarters.")
]
MaxMb = Annotated[float, typer.Option(min=0.01, help="Largest body of a request, in megabytes.")]
MaxMemoryMb = Annotated[float, typer.Option(min=1, help="Memory for bodies and images of all open requests.")]
MaxMegapixels = Annotated[float, typer.Option(min=0.001, help="Largest image.")]
MaxMaskMegapixels = Annotated[float, typer.Option(min=0.001, help="All masks of one answer together.")]
MaxPrompts = Annotated[int, typer.Option(min=1, help="Boxes and point sets of one request.")]
MaxItems = Annotated[int, typer.Option(min=100, help="Values in the lists and objects of a JSON body.")]
MaxDepth = Annotated[int, typer.Option(min=4, help="Brackets within each other in a JSON body.")]
MaxDigits = Annotated[int, typer.Option(min=20, help="Digits of a number in a JSON body.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds that a request may take, and the end after SIGTERM.")]


def needs_web() -> None:
    """Raises SegrlError with the line that adds the web extra if a part of it is missing."""
    missing = [module for module in MODULES if find_spec(module) is None]
    if missing:
        raise SegrlError(
            f"{missing[0]} is not installed: it comes with segrl's extra web (in a clone: pip install '.[web]')"
        )


def limits_of(*, max_mb: float, max_memory_mb: float, **given: object) -> Limits:
    """The limits of these options; the names of the others are those of `Limits`, or end in `megapixels`."""
    from segrl.web.limits import Limits

    values = {name: value for name, value in given.items() if not name.endswith("megapixels")}
    pixels = {
        name.replace("megapixels", "pixels"): round(float(str(value)) * 1e6)
        for name, value in given.items()
        if name.endswith("megapixels")
    }
    sizes = {"max_bytes": round(max_mb * 2**20), "max_memory": round(max_memory_mb * 2**20)}
    return Limits(**{**values, **pixels, **sizes})  # type: ignore[arg-type]


def run_server(
    host: str, port: int, *, seconds: float, warn: bool, make_app: Callable[[], FastAPI], says: Callable[[str], str]
) -> None:
    """Takes the address, makes the application, prints `says(address)` and serves until it is told to stop.

    warn: say that everybody may ask, where the address is not this machine's own.
    """
    from segrl.log_filters import quieten
    from segrl.web.run import bind, serve

    with bind(host, port) as place:
        quieten()
        app = make_app()
        place.listen()  # from here on nobody is turned away
        shown = f"[{host}]" if ":" in host else host
        typer.echo(says(f"http://{shown}:{place.getsockname()[1]}"))
        if warn and host not in LOOPBACK:
            typer.echo("warning: everybody who reaches this address may use it (docs/security.md)", err=True)
        serve(app, place, finish_seconds=seconds)
