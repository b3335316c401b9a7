"""Policies that run here: any image-text-to-text model of transformers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import GenerationConfig, LogitsProcessorList

from segrl.policies.base import Completion
from segrl.policies.chat import end_token_ids, messages, opened_think, read_completion
from segrl.policies.frames import SmartResize, frame_rule
from segrl.policies.sampling import GumbelNoise, request_seed, sample_seed
from segrl.policies.settings import PolicySettings, prepare_image
from segrl.types import Frame

DEFAULT_ANSWER_FORMAT = "json-list"
"""What a policy without a segrl.json is asked for: the list that plain Qwen-VL models were trained to write."""


@dataclass(frozen=True)
class _Row:
    """One completion to generate. `place` is the request's position in the call, `text` the rendered chat."""

    place: int
    sample: int
    image: Image.Image
    text: str
    seed: int


class TransformersPolicy:
    """A model and its processor as a policy.

    settings: how to feed and read it. autocast: compute in bfloat16 whatever the weights' type.
    The model's training mode and its own generation configuration are left as they were found, and
    no decoding setting is ever taken from the latter.
    """

    def __init__(self, model: Any, processor: Any, settings: PolicySettings, *, autocast: bool = False) -> None:
        self.model, self.processor, self.settings = model, processor, settings
        self.answer_format = settings.answer_format or DEFAULT_ANSWER_FORMAT
        self._resize = SmartResize.of(processor)
        self._frame_rule = frame_rule(model.config.model_type, settings, self._resize)
        self._autocast = autocast

    def frame_for(self, image_wh: tuple[int, int]) -> Frame:
        """The frame of the numbers it writes about an original image of `image_wh` pixels."""
        return self._frame_rule(image_wh)

    def render(self, prompt: str) -> str:
        """The exact text that the model is sent for a text prompt, with the image's place marked."""
        chat = messages(None, prompt, self.settings.system)
        text: str = self.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return text

    def generate(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        num_samples: int = 1,
        batch_size: int = 1,
    ) -> list[list[Completion]]:
        """See `Policy.generate`.

        A batch holds only requests of equal prompt length and equal image grid, so nothing is
        padded. Sampling draws from the whole softmax (no top-k, no top-p, no repetition penalty);
        the draws depend on `seed`, the request and the sample's number, not on the batch.
        """
        rows = self._rows(images, prompts, seed, num_samples if temperature > 0 else 0)
        done: dict[tuple[int, int], Completion] = {}
        for batch in self._batches(rows, batch_size):
            completions = self._generate_batch(batch, max_new_tokens, temperature)
            done.update({(row.place, row.sample): one for row, one in zip(batch, completions, strict=True)})
        samples = [i if temperature > 0 else 0 for i in range(num_samples)]
        return [[done[place, i] for i in samples] for place in range(len(prompts))]

    def _rows(self, images: Sequence[Image.Image], prompts: Sequence[str], seed: int, draws: int) -> list[_Row]:
        """`draws` seeded rows per request, or one row that needs no seed where `draws` is 0."""
        seen: Counter[int] = Counter()
        rows = []
        for place, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
            shown, text = prepare_image(image, self.settings), self.render(prompt)
            request = request_seed(seed, prompt, shown) if draws else 0
            rows += [_Row(place, i, shown, text, sample_seed(request, seen[request], i)) for i in range(draws or 1)]
            seen[request] += 1
        return rows

    def _batches(self, rows: Sequence[_Row], batch_size: int) -> Iterator[list[_Row]]:
        """Rows of equal prompt length and image grid together, in the order in which each kind first came."""
        lengths = {text: len(self.processor.tokenizer(text)["input_ids"]) for text in {row.text for row in rows}}
        alike: dict[tuple[int, tuple[int, int]], list[_Row]] = {}
        for row in rows:
            grid_wh = row.image.size if self._resize is None else self._resize.size_wh(row.image.size)
            alike.setdefault((lengths[row.text], grid_wh), []).append(row)
        for group in alike.values():
            yield from (group[i : i + batch_size] for i in range(0, len(group), batch_size))

    def _generate_batch(self, batch: Sequence[_Row], max_new_tokens: int, temperature: float) -> list[Completion]:
        start = time.perf_counter()
        device, dtype = self.model.device, self.model.dtype
        texts, images = [row.text for row in batch], [[row.image] for row in batch]
        inputs = self.processor(text=texts, images=images, return_tensors="pt").to(device, dtype)
        noise = [GumbelNoise([row.seed for row in batch], temperature, device)] if temperature > 0 else []
        with torch.inference_mode(), _plain_decoding(self.model), self._precision():
            ids = self.model.generate(
                **inputs,
                generation_config=self._decoding(max_new_tokens),
                logits_processor=LogitsProcessorList(noise),
            )
        generated = ids[:, inputs["input_ids"].shape[1] :].tolist()
        seconds = (time.perf_counter() - start) / len(batch)
        return [self._completion(row, tokens, seconds) for row, tokens in zip(batch, generated, strict=True)]

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
    """Evaluation mode and an empty generation configuration, so that none beside the weights is merged in."""
    was_training, own = model.training, model.generation_config
    model.eval()
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own
        model.train(was_training)
