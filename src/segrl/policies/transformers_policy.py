"""Policies that run here: any image-text-to-text model of transformers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from queue import SimpleQueue
from threading import Event, Lock
from typing import Any

import torch
from PIL import Image
from transformers import GenerationConfig, LogitsProcessorList

from segrl.errors import DataError
from segrl.policies import one_prefill
from segrl.policies.base import Chat, Completion, ConversingPolicy, request_seed, sample_seed
from segrl.policies.chat import (
    end_token_ids,
    opened_think,
    read_completion,
    render_chat,
    rendered,
    transcript,
    turn_suffix,
    without_control,
)
from segrl.policies.frames import SmartResize, frame_rule
from segrl.policies.settings import PolicySettings, answer_format_of, prepare_image
from segrl.types import Frame

_PART_OF_A_CHARACTER = "\ufffd"
"""What a tokenizer writes for bytes that are no whole character yet."""


class _Stopped(Exception):
    """Nobody reads on: it ends generation, and is no error."""


class TokenQueue:
    """A streamer for transformers' `generate`, which calls `put` and `end`; one completion, read in another thread."""

    def __init__(self) -> None:
        self._tokens: SimpleQueue[int | None] = SimpleQueue()
        self._stopped = Event()
        self._saw_prompt = False

    def put(self, token_ids: torch.Tensor) -> None:
        """The prompt first, which is passed over, then each token. Ends generation once `stop` was called."""
        if self._stopped.is_set():
            raise _Stopped
        if self._saw_prompt:
            for token in token_ids.flatten().tolist():
                self._tokens.put(token)
        self._saw_prompt = True

    def end(self) -> None:
        """No token will come any more; may be called twice."""
        self._tokens.put(None)

    def stop(self) -> None:
        """Nobody reads on: generation ends at its next token."""
        self._stopped.set()

    def pieces(self, tokenizer: Any, opening: str) -> Iterator[str]:
        """The text in pieces as it comes, `opening` first; special tokens are kept, the end token is not."""
        return text_pieces(iter(self._tokens.get, None), tokenizer, opening)


def text_pieces(tokens: Iterable[int], tokenizer: Any, opening: str = "") -> Iterator[str]:
    """What each token adds to the text of `read_completion`; half a character waits for its other half.

    The pieces joined are the text of all tokens.
    """
    ids: list[int] = []
    told = text = opening
    if opening:
        yield opening
    for token in tokens:
        ids.append(token)
        text, _, _ = read_completion(tokenizer, ids, opening=opening)
        if not text.endswith(_PART_OF_A_CHARACTER) and len(text) > len(told):
            yield text[len(told) :]
            told = text
    if len(text) > len(told):
        yield text[len(told) :]


class GumbelNoise:
    """A logits processor after which the most likely token is a draw from softmax(logits / temperature).

    Each row has a generator of its own (Gumbel-max sampling), so a row's tokens do not depend on
    the rows beside it. `scores`: float32 (rows, vocabulary).
    """

    def __init__(self, seeds: Sequence[int], temperature: float, device: torch.device) -> None:
        self._temperature = temperature
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = torch.empty_like(scores)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores / self._temperature - noise.clamp_min_(torch.finfo(noise.dtype).tiny).log_()


GROUNDING_TOKENS = frozenset({"<ref>", "</ref>", "<box>", "</box>"})
"""Special tokens of InternVL that its own request for a box holds, and that change nothing else."""


@dataclass(frozen=True)
class _Row:
    """One completion to generate. `place` is the request's position in the call, `text` the rendered chat."""

    place: int
    sample: int
    images: list[Image.Image]
    text: str
    seed: int


class TransformersPolicy(ConversingPolicy):
    """A model and its processor as a policy.

    settings: how to feed and read it. autocast: compute in bfloat16 whatever the weights' type.
    assumed: one line on what nobody said about this model and was taken for granted; empty where
    nothing was. The model's training mode and its own generation configuration are left as they were
    found, and no decoding setting is ever taken from the latter. Threads may share a policy: one
    batch is generated at a time.
    """

    def __init__(
        self, model: Any, processor: Any, settings: PolicySettings, *, autocast: bool = False, assumed: str = ""
    ) -> None:
        self.model, self.processor, self.settings, self.assumed = model, processor, settings, assumed
        self.answer_format = answer_format_of(settings, model.config.model_type)
        self._resize = SmartResize.of(processor)
        self._frame_rule = frame_rule(model.config.model_type, settings, self._resize)
        self._autocast = autocast
        self._one_at_a_time = Lock()

    def frame_for(self, image_wh: tuple[int, int]) -> Frame:
        """The frame of the numbers it writes about an original image of `image_wh` pixels."""
        return self._frame_rule(image_wh)

    def render(self, prompt: str) -> str:
        """The exact text that the model is sent for a text prompt, with the image's place marked."""
        return rendered(self.processor, prompt, self.settings.system)

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
        """See `ConversingPolicy.reply`.

        A batch holds only requests of equal prompt length and equal image grids, so nothing is
        padded. A request is read once, its images too, for all its samples. Sampling draws from the
        whole softmax (no top-k, no top-p, no repetition penalty); the draws depend on `seed`, the
        request and the sample's number, not on the batch.
        """
        rows = self._rows(chats, seed, num_samples if temperature > 0 else 0)
        done: dict[tuple[int, int], Completion] = {}
        for batch in self._batches(rows, batch_size):
            completions = self._generate_batch(batch, max_new_tokens, temperature, batch_size)
            done.update({(row.place, row.sample): one for row, one in zip(batch, completions, strict=True)})
        samples = [i if temperature > 0 else 0 for i in range(num_samples)]
        return [[done[place, i] for i in samples] for place in range(len(chats))]

    def stream(self, image: Image.Image, prompt: str, *, max_new_tokens: int) -> Generator[str, None, Completion]:
        """The greedy completion of one request while it is written: pieces of its text, then it is returned.

        The pieces joined are the text. Generation runs in a thread of its own and ends when the
        generator is closed.
        """
        (row,) = self._rows([Chat(image, prompt)], 0, 0)
        queue = TokenQueue()
        with ThreadPoolExecutor(1) as thread:
            job = thread.submit(self._stream_into, queue, row, max_new_tokens)
            try:
                yield from queue.pieces(self.processor.tokenizer, opened_think(row.text))
            finally:
                queue.stop()
            return job.result()

    def _stream_into(self, queue: TokenQueue, row: _Row, max_new_tokens: int) -> Completion:
        try:
            return self._generate_batch([row], max_new_tokens, 0.0, 1, streamer=queue)[0]
        finally:
            queue.end()

    def _rows(self, chats: Sequence[Chat], seed: int, draws: int) -> list[_Row]:
        """`draws` seeded rows per request, or one row that needs no seed where `draws` is 0."""
        seen: Counter[int] = Counter()
        rows = []
        for place, chat in enumerate(chats):
            self._check_words(chat.prompt)
            text = self._transcript(chat)
            shown = [prepare_image(one, self.settings) for one in (chat.image, *(e.picture for e in chat.exchanges))]
            asked = chat.prompt if not chat.exchanges else text
            request = request_seed(seed, asked, shown[0]) if draws else 0
            rows += [_Row(place, i, shown, text, sample_seed(request, seen[request], i)) for i in range(draws or 1)]
            seen[request] += 1
        return rows

    def _transcript(self, chat: Chat) -> str:
        """The text that the model reads before its next answer, with each picture's place marked."""
        exchanges = [
            (self._without_control(one.text), self._suffix(self._without_control(one.words))) for one in chat.exchanges
        ]
        return transcript(self.render(chat.prompt), exchanges)

    def _suffix(self, words: str) -> str:
        return turn_suffix(partial(render_chat, self.processor), words)

    def _without_control(self, text: str) -> str:
        return without_control(self.processor.tokenizer, text, GROUNDING_TOKENS)

    def _check_words(self, prompt: str) -> None:
        """Raise DataError for a prompt in which the model would see another image, or the end of its turn."""
        control = (token for token in self.processor.tokenizer.all_special_tokens if token not in GROUNDING_TOKENS)
        found = next((token for token in control if token in prompt), None)
        if found is not None:
            raise DataError(f"{found} is a control token of this model and cannot be part of a query: leave it out")

    def _batches(self, rows: Sequence[_Row], batch_size: int) -> Iterator[list[_Row]]:
        """Requests of equal prompt length and image grid together, in the order in which each kind first came.

        As many as have `batch_size` rows, each with all of its samples; one that has more comes alone.
        """
        lengths = {text: len(self.processor.tokenizer(text)["input_ids"]) for text in {row.text for row in rows}}
        alike: dict[tuple[int, tuple[tuple[int, int], ...]], list[list[_Row]]] = {}
        for _, of_request in groupby(rows, lambda row: row.place):
            samples = list(of_request)
            images, text = samples[0].images, samples[0].text
            sizes = [one.size if self._resize is None else self._resize.size_wh(one.size) for one in images]
            alike.setdefault((lengths[text], tuple(sizes)), []).append(samples)
        for requests in alike.values():
            together = max(1, batch_size // len(requests[0]))
            for i in range(0, len(requests), together):
                yield list(chain.from_iterable(requests[i : i + together]))

    def _generate_batch(
        self,
        batch: Sequence[_Row],
        max_new_tokens: int,
        temperature: float,
        batch_size: int,
        streamer: TokenQueue | None = None,
    ) -> list[Completion]:
        start = time.perf_counter()
        requests = list({row.place: row for row in batch}.values())
        places = [row.place for row in requests]
        inputs = self.processor(
            text=[row.text for row in requests], images=[row.images for row in requests], return_tensors="pt"
        ).to(self.model.device, self.model.dtype)
        config = self._decoding(max_new_tokens)
        generated: list[list[int]] = []
        with self._one_at_a_time, torch.inference_mode(), _plain_decoding(self.model), self._precision():
            prompts = one_prefill.read(self.model, inputs, config) if len(batch) > len(requests) else None
            for part in (batch[i : i + batch_size] for i in range(0, len(batch), batch_size)):
                options = {"generation_config": config, "logits_processor": self._noise(part, temperature)}
                if prompts is None:
                    ids = self.model.generate(**inputs, **options, streamer=streamer)
                else:
                    ids = prompts.go_on([places.index(row.place) for row in part], **options)
                generated += ids[:, inputs["input_ids"].shape[1] :].tolist()
        seconds = (time.perf_counter() - start) / len(batch)
        return [self._completion(row, tokens, seconds) for row, tokens in zip(batch, generated, strict=True)]

    def _noise(self, rows: Sequence[_Row], temperature: float) -> LogitsProcessorList:
        noise = [GumbelNoise([row.seed for row in rows], temperature, self.model.device)] if temperature > 0 else []
        return LogitsProcessorList(noise)

    def _completion(self, row: _Row, tokens: list[int], seconds: float) -> Completion:
        text, truncated, n = read_completion(self.processor.tokenizer, tokens, opening=opened_think(row.text))
        return Completion(text, truncated, n, seconds)

    def _decoding(self, max_new_tokens: int) -> GenerationConfig:
        """Greedy decoding in every respect; sampling adds its noise to the logits instead."""
        tokenizer = self.processor.tokenizer
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        return GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            use_cache=True,
            eos_token_id=sorted(end_token_ids(tokenizer)),
            pad_token_id=pad,
        )

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.model.device.type, torch.bfloat16) if self._autocast else nullcontext()


@contextmanager
def _plain_decoding(model: Any) -> Iterator[None]:
    """Evaluation mode, and nothing of a file beside the weights."""
    was_training = model.training
    model.eval()
    try:
        with one_prefill.without_sampling_defaults(model):
            yield
    finally:
        model.train(was_training)
