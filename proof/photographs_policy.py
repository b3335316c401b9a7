"""A tiny policy with a convolutional image encoder: FastVLM's own architecture and processor, for photographs.

A transformer's image encoder of this size does not learn to look from ten thousand pictures; a convolutional one does
(FastViT, through timm), and first from masks: `proof/photographs_eyes.py`, then `recipes/photographs.yaml`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segrl.files import write_atomically
from segrl.tiny.model import build_tokenizer

if TYPE_CHECKING:
    from transformers import FastVlmForConditionalGeneration, ProcessorMixin

SIDE = 192
"""Width and height of the square that every image is squashed to, and the frame of the policy's numbers."""
STRIDE = 32
"""Pixels of the image under one of the encoder's features, each way."""
FEATURES = 384
"""Numbers in one of the encoder's features: FastViT ends at twice its last stage's width."""
ENCODER = {"embed_dims": (24, 48, 96, 192), "layers": (2, 2, 4, 2)}
SETTINGS = f'{{\n  "answer_format": "seg-r1",\n  "frame": "resized",\n  "input_wh": [{SIDE}, {SIDE}]\n}}\n'


def build_processor() -> ProcessorMixin:
    """LLaVA's processor (FastVLM's own) with the tiny tokenizer."""
    from transformers import CLIPImageProcessor, LlavaProcessor

    tokenizer = build_tokenizer(SIDE)
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
    """A freshly initialised policy of 1.9 million parameters in float32; equal seeds give equal weights."""
    import torch
    from transformers import FastVlmConfig, FastVlmForConditionalGeneration, TimmWrapperConfig

    tokenizer = build_tokenizer(SIDE)
    vision = TimmWrapperConfig(architecture="fastvit_t8", do_pooling=False, model_args=ENCODER)
    vision.hidden_size = vision.num_features = FEATURES  # of the last layer; the wrapper would ask the network
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
    write_atomically(directory / "segrl.json", SETTINGS)
