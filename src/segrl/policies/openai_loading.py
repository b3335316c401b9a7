"""From `openai:MODEL@http://host:port/v1` to a policy, with every mistake told in one line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import parse_qsl

from segrl.errors import ModelError, ServerError
from segrl.policies.frames import FAMILY_RESIZE, SmartResize, check_family, family_of, frame_name
from segrl.policies.openai_policy import OpenAIPolicy, ServedModel
from segrl.policies.published import published_settings
from segrl.policies.server import Server, read_key
from segrl.policies.settings import PolicySettings
from segrl.text import did_you_mean, most_alike

_NAME = re.compile(r"openai:(?P<model>.+?)@(?P<url>https?://[^?]+)(?:\?(?P<options>.*))?")


@dataclass(frozen=True)
class ServedOptions:
    """What may follow the address (`?concurrency=32&retries=9`) or be given to `load`.

    answer_format, frame, input_wh, system: as for a local checkpoint. family: `model_type` of the
    model's configuration, for a model whose name does not say it. min_pixels, max_pixels: the limits
    of the server's own image processor, where they are not the family's (only `smart_resize` needs
    them). concurrency: requests under way at once. timeout_s and retries: see `Server`.
    api_key_env: the environment variable with the key (default: SEGRL_API_KEY, if it is set).
    token_limit_field: `max_completion_tokens` for servers that want that.
    """

    answer_format: str | None = None
    frame: str | None = None
    input_wh: tuple[int, int] | None = None
    system: str | None = None
    family: str | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    concurrency: int = 8
    timeout_s: float = 300.0
    retries: int = 5
    api_key_env: str | None = None
    token_limit_field: str = "max_tokens"

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.retries < 0 or self.timeout_s <= 0:
            numbers = f"concurrency={self.concurrency}, retries={self.retries}, timeout_s={self.timeout_s}"
            raise ModelError(f"{numbers}: at least one request, no fewer than no retries, and some time")
        if self.family is not None:
            check_family(self.family)


def load(name: str, **options: Any) -> OpenAIPolicy:
    """The policy behind a server, `openai:MODEL@http://host:port/v1`. options: see `ServedOptions`.

    The server's list of models is asked first. Raises ModelError for a name of another form, an unknown
    option (naming the nearest), a server that does not answer, and a model that it does not serve.
    """
    model, url, written = split_name(name)
    given = {key: value for key, value in options.items() if value is not None}
    chosen = ServedOptions(**_known(given | written, name))
    server = Server(
        url,
        key=read_key(chosen.api_key_env),
        timeout_s=chosen.timeout_s,
        retries=chosen.retries,
        connections=chosen.concurrency,
    )
    served = _served(server, model, chosen.family)
    settings = published_settings(model).override(
        answer_format=chosen.answer_format, frame=chosen.frame, input_wh=_as_pair(chosen.input_wh), system=chosen.system
    )
    return OpenAIPolicy(
        server,
        served,
        settings,
        resize=_resize(served.family, settings, chosen),
        concurrency=chosen.concurrency,
        token_limit_field=chosen.token_limit_field,
    )


def split_name(name: str) -> tuple[str, str, dict[str, Any]]:
    """(model, address, options) of a policy's name. Raises ModelError for another form and an unknown option.

    >>> split_name("openai:a/b@http://localhost:8000/v1?concurrency=4")
    ('a/b', 'http://localhost:8000/v1', {'concurrency': 4})
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ModelError(f"{name!r} names no model of a server: write openai:MODEL@http://host:port/v1")
    texts = _known(dict(parse_qsl(match["options"] or "", keep_blank_values=True)), name)
    options = {}
    for key, text in texts.items():
        try:
            options[key] = _WRITTEN.get(key, str)(text)
        except ValueError as error:
            raise ModelError(f"{name!r}: {key} cannot be {text!r}") from error
    return match["model"], match["url"], options


def _written_pair(text: str) -> tuple[int, ...]:
    return tuple(int(side) for side in text.split("x"))


_WRITTEN: Mapping[str, Callable[[str], Any]] = {
    "input_wh": _written_pair,
    "min_pixels": int,
    "max_pixels": int,
    "concurrency": int,
    "retries": int,
    "timeout_s": float,
}
"""How an option behind an address is read; the others are texts."""


def _known(options: dict[str, Any], name: str) -> dict[str, Any]:
    """The options, if there are such. Raises ModelError naming the nearest."""
    known = [field.name for field in fields(ServedOptions)]
    for key in options:
        if key not in known:
            raise ModelError(f"{name!r}: unknown option {key!r}; {did_you_mean(key, known)}")
    return options


def _as_pair(value: Any) -> Any:
    """A recipe's or a command line's list as the tuple that PolicySettings wants; it checks the rest."""
    return tuple(value) if isinstance(value, list) else value


def _resize(family: str, settings: PolicySettings, options: ServedOptions) -> SmartResize | None:
    """How the server's processor sizes an image; None where the policy's numbers do not depend on it."""
    resize = FAMILY_RESIZE.get(family)
    if resize is None or frame_name(family, settings) != "smart_resize":
        return None
    low, high = options.min_pixels or resize.min_pixels, options.max_pixels or resize.max_pixels
    return replace(resize, min_pixels=low, max_pixels=high)


def _served(server: Server, model: str, family: str | None) -> ServedModel:
    """What the server says of a model; what its name says, where the server has no list of models."""
    try:
        rows = server.get("models", lambda reply: [(str(row["id"]), row) for row in reply["data"]])
    except ServerError as error:
        if error.status not in (403, 404, 405, 501):
            raise
        rows = []
    known = dict(rows)
    if rows and model not in known:
        near = most_alike(model, known, 3)
        raise ModelError(f"{server.base_url} does not serve {model!r}; it serves {', '.join(near)}")
    row = known.get(model, {})
    told = family or family_of(model) or family_of(str(row.get("root") or ""))
    return ServedModel(model, told, str(row.get("owned_by") or ""))
