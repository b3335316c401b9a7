"""Policies that run elsewhere: any server with OpenAI's chat completions (vLLM, SGLang, a vendor).

    openai:Qwen/Qwen2.5-VL-7B-Instruct@http://localhost:8000/v1
    openai:Qwen/Qwen3-VL-8B-Instruct@http://localhost:8000/v1?concurrency=32&answer_format=seg-r1

The picture goes out as PNG in the size in which the model family reads it, so that its numbers have
a frame that is known here: squashed to `input_wh` where the settings say so, resized as the family's
own processor would where numbers are pixels of that (Qwen2.5-VL), else as it is.
"""

from __future__ import annotations

import base64
import functools
import io
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from PIL import Image

from segrl.errors import ModelError, ServerError
from segrl.files import legible
from segrl.policies.base import Chat, Completion, ConversingPolicy, request_seed, sample_seed
from segrl.policies.frames import FAMILY_RESIZE, SmartResize, check_family, family_of, frame_name, frame_rule
from segrl.policies.http_client import Server, read_key
from segrl.policies.published import published_settings
from segrl.policies.settings import PolicySettings, answer_format_of, prepare_image, read_template
from segrl.text import did_you_mean, most_alike
from segrl.types import Frame

PLAIN_DECODING: Mapping[str, Mapping[str, Any]] = {
    "vllm": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
    "sglang": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
}
"""By the `owned_by` of a server's list of models: what switches off settings that it would take from a
file beside the weights. A vendor takes no such fields."""

_SEED_BITS = 31

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class ServedModel:
    """model: the name under which the server knows it. family: `model_type` of its configuration, or "".
    kind: `owned_by` in the server's list of models, or ""."""

    model: str
    family: str = ""
    kind: str = ""


class OpenAIPolicy(ConversingPolicy):
    """A model behind a server as a policy. `load` builds one by name.

    settings: as for a local checkpoint. resize: how the server sizes an image, given exactly where the
    frame is `smart_resize`. concurrency: requests under way at once. token_limit_field:
    the name that the server gives to the limit of new tokens. Raises ModelError as `frame_rule`.
    """

    def __init__(
        self,
        server: Server,
        served: ServedModel,
        settings: PolicySettings,
        *,
        resize: SmartResize | None = None,
        concurrency: int = 8,
        token_limit_field: str = "max_tokens",
    ) -> None:
        self.server, self.served, self.settings, self.concurrency = server, served, settings, concurrency
        self.answer_format = answer_format_of(settings, served.family)
        self._frame_rule = frame_rule(served.family, settings, resize)
        self._resize = resize
        self._token_limit_field = token_limit_field

    def frame_for(self, image_wh: tuple[int, int]) -> Frame:
        """The frame of the numbers it writes about an original image of `image_wh` pixels."""
        return self._frame_rule(image_wh)

    def shown(self, image: Image.Image) -> Image.Image:
        """The picture that is sent for an original image: RGB, in the size that the module's text names."""
        picture = prepare_image(image, self.settings)
        if self._resize is None:
            return picture
        size_wh = self._resize.size_wh(picture.size)
        return picture if picture.size == size_wh else picture.resize(size_wh, Image.Resampling.BICUBIC)

    def reply(
        self,
        chats: Sequence[Chat],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        num_samples: int = 1,
        batch_size: int = 1,
    ) -> list[list[Completion]]:
        """See `ConversingPolicy.reply`; `batch_size` is ignored, as the server batches by itself.

        At most `concurrency` requests are under way. A completion is truncated if the server's
        finish_reason is "length"; its seconds are the call's wall time divided by the completions.
        Raises ServerError if a request fails for good; the others are then given up.
        """
        start = time.perf_counter()
        draws = num_samples if temperature > 0 else 1
        occurrences: Counter[int] = Counter()
        calls: list[Callable[[], Completion]] = []
        for chat in chats:
            picture = self.shown(chat.image)
            asked = "\n".join([chat.prompt, *(part for one in chat.exchanges for part in (one.text, one.words))])
            request = request_seed(seed, asked, picture) if temperature > 0 else 0
            messages = functools.cache(functools.partial(self._messages, chat, picture))
            for sample in range(draws):
                drawn = sample_seed(request, occurrences[request], sample) >> (63 - _SEED_BITS)
                body = self._body(max_new_tokens, temperature, drawn)
                calls.append(functools.partial(self._complete, body, messages))
            occurrences[request] += 1
        found = at_once(lambda call: call(), calls, self.concurrency)
        seconds = (time.perf_counter() - start) / max(len(found), 1)
        done = [Completion(one.text, one.truncated, one.n_tokens, seconds) for one in found]
        rows = [done[i : i + draws] for i in range(0, len(done), draws)]
        return [[row[i % draws] for i in range(num_samples)] for row in rows]

    def _body(self, max_new_tokens: int, temperature: float, seed: int) -> dict[str, Any]:
        """Everything of a request but its messages; sampling draws from the whole softmax."""
        body: dict[str, Any] = {"model": self.served.model, "temperature": temperature, "top_p": 1.0, "stream": False}
        body |= {self._token_limit_field: max_new_tokens, **PLAIN_DECODING.get(self.served.kind, {})}
        return body | ({"seed": seed} if temperature > 0 else {})

    def _messages(self, chat: Chat, picture: Image.Image) -> list[dict[str, Any]]:
        found = chat_messages(chat.prompt, data_url(picture), self.settings.system)
        for one in chat.exchanges:
            found.append({"role": "assistant", "content": legible(one.text)})
            found += chat_messages(one.words, data_url(self.shown(one.picture)))
        return found

    def _complete(self, body: Mapping[str, Any], messages: Callable[[], list[dict[str, Any]]]) -> Completion:
        return self.server.post("chat/completions", {**body, "messages": messages()}, read_reply)


def chat_messages(prompt: str, image_url: str | None, system: str | None = None) -> list[dict[str, Any]]:
    """The chat of `policies.messages` as the API wants it; `image_url` None leaves the image out."""
    picture = [] if image_url is None else [{"type": "image_url", "image_url": {"url": image_url}}]
    user = {"role": "user", "content": [*picture, {"type": "text", "text": legible(prompt)}]}
    return [user] if system is None else [{"role": "system", "content": system}, user]


def data_url(image: Image.Image) -> str:
    """An RGB image as a `data:` URL that holds a PNG."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def read_reply(reply: Any) -> Completion:
    """The completion in a server's reply, its `seconds` 0.

    Reasoning that a server keeps apart is put in front in think tags, and so is an opening <think>
    that the chat template wrote (a `</think>` comes before any `<think>`). Where a server's reasoning
    parser took the whole of a finished answer for reasoning (`content` is null), that is the text. A text
    that a filter withheld is empty. Raises KeyError, TypeError, IndexError or ValueError for what is no reply.
    """
    choice = reply["choices"][0]
    message, finish = choice["message"], choice["finish_reason"]
    text, apart = message.get("content") or "", message.get("reasoning_content") or message.get("reasoning")
    if not isinstance(text, str) or not isinstance(finish, str) or not isinstance(apart, str | None):
        raise ValueError("no text, or no finish_reason")
    if apart and not text and finish == "stop":
        text = apart
    elif apart and "</think>" not in text:
        text = f"<think>{apart}</think>{text}"
    elif "<think>" not in (before := text.partition("</think>"))[0] and before[1]:
        text = f"<think>{text}"
    used = reply.get("usage") or {}
    return Completion(text, finish == "length", int(used.get("completion_tokens") or 0))


def at_once(call: Callable[[_In], _Out], items: Sequence[_In], concurrency: int) -> list[_Out]:
    """`call` of each item in their order, at most `concurrency` at a time in threads.

    The first exception is raised; calls that have not begun by then are dropped.
    """
    if not items:
        return []
    with ThreadPoolExecutor(min(concurrency, len(items))) as pool:
        futures = [pool.submit(call, item) for item in items]
        try:
            ended, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for failed in (future for future in futures if future in ended and future.exception()):
                failed.result()
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_NAME = re.compile(r"openai:(?P<model>.+?)@(?P<url>https?://[^?]+)(?:\?(?P<options>.*))?")


@dataclass(frozen=True)
class ServedOptions:
    """What may follow the address (`?concurrency=32&retries=9`) or be given to `load`.

    answer_format, frame, input_wh, system, prompt_template, turns: as for a local checkpoint. family: `model_type` of
    the model's configuration, for a model whose name does not say it. min_pixels, max_pixels: the limits
    of the server's own image processor, where they are not the family's (only `smart_resize` needs
    them). concurrency: requests under way at once. timeout_s and retries: see `Server`.
    api_key_env: the environment variable with the key (default: SEGRL_API_KEY, if it is set).
    token_limit_field: `max_completion_tokens` for servers that want that.
    """

    answer_format: str | None = None
    frame: str | None = None
    input_wh: tuple[int, int] | None = None
    system: str | None = None
    prompt_template: str | None = None
    turns: Mapping[str, Any] | None = None
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
            raise ModelError(f"{numbers}: concurrency is at least 1, retries at least 0, timeout_s above 0")
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
        answer_format=chosen.answer_format,
        frame=chosen.frame,
        input_wh=chosen.input_wh,
        system=chosen.system,
        prompt_template=read_template(chosen.prompt_template),
        turns=chosen.turns,
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
        raise ModelError(f"{name!r} is not the name of a model behind a server: write openai:MODEL@http://host:port/v1")
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
