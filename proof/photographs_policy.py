"""A tiny policy with a convolutional image encoder: FastVLM's own architecture and processor, for photographs.

A transformer's image encoder of this size does not learn to look from ten thousand pictures; a convolutional one does
(a narrow ResNet-18 of transformers), and first from masks: `proof/photographs_eyes.py`, `recipes/photographs.yaml`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from segrl.files import write_atomically
from segrl.tiny.model import PHRASES, WORDS, build_tokenizer

if TYPE_CHECKING:
    from transformers import FastVlmForConditionalGeneration, PreTrainedTokenizerFast, ProcessorMixin

SIDE = 192
"""Width and height of the square that every image is squashed to, and the frame of the policy's numbers."""
STRIDE = 32
"""Pixels of the image under one of the encoder's features, each way."""
FEATURES = 256
"""Numbers in one of the encoder's features."""
ENCODER = {
    "embedding_size": 32,
    "hidden_sizes": [32, 64, 128, FEATURES],
    "depths": [2, 2, 2, 2],
    "layer_type": "basic",
}
"""Plain convolutions, which a processor trains faster than the many branches of FastVLM's own FastViT."""
PHOTO_PHRASES = (*PHRASES, " at (", "). it is 1</think> <bbox>[")
PHOTO_WORDS = (*WORDS, "primary", "main", "in", "image", "at")
QUERIES = (
    "Identify and segment all the primary objects in the image.",
    "all the primary objects",
    "the main object",
    "the main objects",
)
"""What it answers, each asked in the words of the first, which are Seg-R1's."""
SETTINGS = {
    "answer_format": "seg-r1",
    "frame": "resized",
    "input_wh": [SIDE, SIDE],
    "segmenter": "tiny",
    "queries": QUERIES,
}


def build_photo_tokenizer() -> PreTrainedTokenizerFast:
    """The tiny tokenizer with the words of the question and of the reasoning, and numbers to SIDE."""
    return build_tokenizer(SIDE, PHOTO_PHRASES, PHOTO_WORDS)


def build_processor() -> ProcessorMixin:
    """LLaVA's processor (FastVLM's own) with the tiny tokenizer."""
    from transformers import CLIPImageProcessor, LlavaProcessor

    tokenizer = build_photo_tokenizer()
    square = {"height": SIDE, "width": SIDE}
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(size=square, crop_size=square, do_center_crop=False, **half),
        tokenizer=tokenizer,
        patch_size=STRIDE,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        image_token="<|image_pad|>",
        chat_template=tokenizer.chat_template,
    )


def build(seed: int = 0) -> FastVlmForConditionalGeneration:
    """A freshly initialised policy of 3.8 million parameters in float32; equal seeds give equal weights."""
    import torch
    from transformers import FastVlmConfig, FastVlmForConditionalGeneration, ResNetConfig

    tokenizer = build_photo_tokenizer()
    vision = ResNetConfig(**ENCODER)
    vision.hidden_size = FEATURES  # what FastVLM asks a tower's configuration for
    text = {
        "model_type": "qwen2",
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "initializer_range": 0.05,
    }
    torch.manual_seed(seed)
    model = FastVlmForConditionalGeneration(
        FastVlmConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
            image_seq_length=(SIDE // STRIDE) ** 2,
            tie_word_embeddings=True,
        )
    )
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def save(directory: Path, model: FastVlmForConditionalGeneration) -> None:
    """Writes a policy to `directory` in the ordinary `from_pretrained` layout."""
    model.save_pretrained(directory)
    build_processor().save_pretrained(directory)
    write_atomically(directory / "segrl.json", json.dumps(SETTINGS, indent=2) + "\n")
