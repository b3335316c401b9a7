"""The tiny policy's tokenizer: whole words, whole numbers and frequent phrases; bytes for everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segrl.tiny.shapes import COLOURS, SHAPES, SIDE, SIZES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

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


def build(highest: int = SIDE) -> PreTrainedTokenizerFast:
    """The tokenizer: one token per phrase, per known word (also with a space before it), per integer to `highest`."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    numbers = [str(i) for i in range(highest + 1)]
    pieces = [
        *PHRASES,
        *WORDS,
        *(f" {word}" for word in WORDS),
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
    phrases = "|".join(_escape(phrase) for phrase in sorted(PHRASES, key=len, reverse=True))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(f"{phrases}| ?[A-Za-z]+| ?[0-9]+|, |\\. |[\\s\\S]"), "isolated")
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
