"""The tiny policy: Qwen3-VL's own architecture and processor, small enough for two CPU cores; its tokenizer.

A token is a whole word, a whole number or a frequent phrase; bytes stand for everything else.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segrl.segmenters.shapes import COLOURS, SHAPES, SIZES
from segrl.tiny.shapes import SIDE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, ProcessorMixin, Qwen3VLForConditionalGeneration


SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Control tokens of the Qwen family, in the roles that it gives them; every other token is ordinary text."""

PHRASES = (
    "]</bbox>, <points>[[", "]]</points>, <labels>[", "]</bbox>, <bbox>[", "]</labels>",
    "</think> <bbox>[", "</think> <answer>", "</answer>", "<think>", "],[", "], [",
    "</think>", "<answer>", "<bbox>", "</bbox>", "<points>", "</points>", "<labels>", "</labels>",
    ": yes", ": no", ". it is", ". none match", " and",
    "</think> <bbox>[]</bbox>, <points>[]</points>, <labels>[]</labels>",
)  # fmt: skip
WORDS = (
    *COLOURS, *SHAPES, *SIZES, *("it", "is", "and", "none", "match", "the", "object", "objects", "all", "just"),
    *("smallest", "largest", "leftmost", "rightmost", "highest", "lowest", "left", "right", "of", "how", "many"),
    *("are", "there", "Identify", "segment", "people", "person", "user", "assistant", "system"),
)  # fmt: skip

CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}
{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}
"""


def build_tokenizer(
    highest: int = SIDE, phrases: Sequence[str] = PHRASES, words: Sequence[str] = WORDS
) -> PreTrainedTokenizerFast:
    """The tokenizer: one token per phrase, per known word (also with a space before it), per integer to `highest`."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    numbers = [str(i) for i in range(highest + 1)]
    pieces = [
        *phrases,
        *words,
        *(f" {word}" for word in words),
        *numbers,
        *(f" {n}" for n in numbers),
        *"[](),.:;?-_\n ",
        ", ",
        ". ",
    ]
    vocabulary = [*SPECIAL, *dict.fromkeys(pieces), *(f"<0x{i:02X}>" for i in range(256))]
    core = Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(vocabulary)},
            merges=[],
            byte_fallback=True,
            ignore_merges=True,  # a piece of the vocabulary is one token; anything else is spelled in bytes
            unk_token=None,
        )
    )
    known = "|".join(_escape(phrase) for phrase in sorted(phrases, key=len, reverse=True))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(f"{known}| ?[A-Za-z]+| ?[0-9]+|, |\\. |[\\s\\S]"), "isolated")
    core.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=[token for token in SPECIAL if token not in ("<|im_end|>", "<|endoftext|>")],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=1024,
    )


def _escape(phrase: str) -> str:
    return "".join("\\" + c if c in "[]|()." else c for c in phrase)


WEIGHTS = Path(__file__).parent / "weights"
"""The shipped policy."""
SETTINGS = "segrl.json"
"""Which answer format a policy writes and what its numbers mean."""


@dataclass(frozen=True)
class Shape:
    """Sizes of the network. `vision_*` is the image encoder, the rest the language model."""

    width: int = 128
    layers: int = 4
    heads: int = 4
    mlp: int = 384
    vision_width: int = 128
    vision_layers: int = 3
    vision_heads: int = 4
    vision_mlp: int = 256
    patch: int = 14
    merge: int = 2


def build_processor(shape: Shape = Shape()) -> ProcessorMixin:
    """Qwen3-VL's processor with the tiny tokenizer; an image of SIDE × SIDE goes in at its own size."""
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    pixels = {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE}
    sizes = {"patch_size": shape.patch, "merge_size": shape.merge, "temporal_patch_size": 2, "size": pixels}
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    tokenizer = build_tokenizer()
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sizes, **half),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**sizes, **half),
        chat_template=tokenizer.chat_template,
    )


def build(shape: Shape = Shape(), seed: int = 0) -> Qwen3VLForConditionalGeneration:
    """A freshly initialised policy in float32; equal seeds give equal weights."""
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    tokenizer = build_tokenizer()
    head = shape.width // shape.heads
    sections = [head // 2 - 2 * (head // 6), head // 6, head // 6]
    ids = {
        name: tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("image_pad", "video_pad", "vision_start", "vision_end")
    }
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": shape.width,
            "intermediate_size": shape.mlp,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.heads,
            "head_dim": head,
            "max_position_embeddings": 1024,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": sections,
                "mrope_interleaved": True,
            },
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "tie_word_embeddings": True,
            "initializer_range": 0.05,
        },
        vision_config={
            "depth": shape.vision_layers,
            "hidden_size": shape.vision_width,
            "intermediate_size": shape.vision_mlp,
            "num_heads": shape.vision_heads,
            "patch_size": shape.patch,
            "spatial_merge_size": shape.merge,
            "temporal_patch_size": 2,
            "out_hidden_size": shape.width,
            "num_position_embeddings": (SIDE // shape.patch) ** 2,
            "deepstack_visual_indexes": [shape.vision_layers - 2],
            "initializer_range": 0.05,
        },
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def save(directory: Path, shape: Shape = Shape(), seed: int = 0) -> None:
    """Writes a fresh policy to `directory` in the ordinary `from_pretrained` layout."""
    build(shape, seed).save_pretrained(directory)
    build_processor(shape).save_pretrained(directory)
    shutil.copy(WEIGHTS / SETTINGS, directory / SETTINGS)  # it is asked and read as the shipped one is
