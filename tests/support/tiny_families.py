"""Freshly initialised checkpoints of each model family, a few kilobytes each, saved as `from_pretrained` reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from random_weights import randomise

from segrl.tiny.model import CHAT_TEMPLATE, build_tokenizer

SIZE = {"hidden_size": 32, "intermediate_size": 64}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2}
PIXELS = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 16}
ROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
TOKEN_IDS = {"image_token_id": "image_pad", "video_token_id": "video_pad"}
TOKEN_IDS |= {"vision_start_token_id": "vision_start", "vision_end_token_id": "vision_end"}


def _ids(tokenizer: Any) -> dict[str, int]:
    return {key: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for key, name in TOKEN_IDS.items()}


def _text(tokenizer: Any, **more: Any) -> dict[str, Any]:
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return {"vocab_size": len(tokenizer), "num_hidden_layers": 1, **SIZE, **HEADS, **ends} | more


def _qwen2_vl() -> tuple[Any, Any]:
    import transformers as t

    tokenizer = build_tokenizer()
    processor = t.Qwen2VLProcessor(
        image_processor=t.Qwen2VLImageProcessor(size=PIXELS),
        tokenizer=tokenizer,
        video_processor=t.Qwen2VLVideoProcessor(size=PIXELS),
        chat_template=tokenizer.chat_template,
    )
    config = t.Qwen2VLConfig(
        text_config=_text(tokenizer, rope_parameters=ROPE),
        vision_config={"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2},
        **_ids(tokenizer),
    )
    return t.Qwen2VLForConditionalGeneration(config), processor


def _qwen2_5_vl(times: int = 1) -> tuple[Any, Any]:
    """times: how much wider than SIZE the language model is."""
    import transformers as t

    tokenizer, width = build_tokenizer(), times * SIZE["hidden_size"]
    rope = {**ROPE, "mrope_section": [times * n for n in ROPE["mrope_section"]]}
    processor = t.Qwen2_5_VLProcessor(
        image_processor=t.Qwen2VLImageProcessor(size=PIXELS),
        tokenizer=tokenizer,
        video_processor=t.Qwen2VLVideoProcessor(size=PIXELS),
        chat_template=tokenizer.chat_template,
    )
    config = t.Qwen2_5_VLConfig(
        text_config=_text(tokenizer, rope_parameters=rope, hidden_size=width),
        vision_config={"depth": 1, "num_heads": 2, "out_hidden_size": width, "fullatt_block_indexes": [0], **SIZE},
        **_ids(tokenizer),
    )
    return t.Qwen2_5_VLForConditionalGeneration(config), processor


def _qwen3_processor() -> Any:
    import transformers as t

    tokenizer = build_tokenizer()
    sizes = {"patch_size": 16, "merge_size": 2, "temporal_patch_size": 2}
    pixels = {"shortest_edge": 64 * 64, "longest_edge": 32 * 32 * 16}
    return t.Qwen3VLProcessor(
        image_processor=t.Qwen2VLImageProcessor(**sizes, size=pixels),
        tokenizer=tokenizer,
        video_processor=t.Qwen3VLVideoProcessor(**sizes),
        chat_template=tokenizer.chat_template,
    )


_QWEN3_VISION = {"depth": 2, "num_heads": 2, "out_hidden_size": 32, "num_position_embeddings": 16, **SIZE}


def _qwen3_vl() -> tuple[Any, Any]:
    import transformers as t

    processor = _qwen3_processor()
    config = t.Qwen3VLConfig(
        text_config=_text(processor.tokenizer, head_dim=16, rope_parameters={**ROPE, "mrope_interleaved": True}),
        vision_config={**_QWEN3_VISION, "deepstack_visual_indexes": [0]},
        **_ids(processor.tokenizer),
    )
    return t.Qwen3VLForConditionalGeneration(config), processor


def _qwen3_5() -> tuple[Any, Any]:
    import transformers as t

    processor = _qwen3_processor()
    linear = {f"linear_num_{kind}_heads": 2 for kind in ("key", "value")}
    linear |= {f"linear_{kind}_head_dim": 8 for kind in ("key", "value")}
    rope = {**ROPE, "mrope_interleaved": True, "partial_rotary_factor": 1.0}
    text = _text(processor.tokenizer, head_dim=16, rope_parameters=rope, **linear)
    layers = {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]}
    config = t.Qwen3_5Config(text_config={**text, **layers}, vision_config=_QWEN3_VISION, **_ids(processor.tokenizer))
    return t.Qwen3_5ForConditionalGeneration(config), processor


def _internvl() -> tuple[Any, Any]:
    import transformers as t

    template = CHAT_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<|image_pad|>\n")
    tokenizer = build_tokenizer()
    named = {"start_image_token": "<|vision_start|>", "end_image_token": "<|vision_end|>"}
    named |= {"context_image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    tokenizer._set_model_specific_special_tokens(special_tokens=named)
    processor = t.InternVLProcessor(
        image_processor=t.GotOcr2ImageProcessor(size={"height": 56, "width": 56}, max_patches=2),
        tokenizer=tokenizer,
        video_processor=t.InternVLVideoProcessor(size={"height": 56, "width": 56}),
        image_seq_length=4,
        chat_template=template,
    )
    config = t.InternVLConfig(
        text_config={"model_type": "qwen2", **_text(tokenizer)},
        vision_config={"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": [56, 56], **SIZE},
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        image_seq_length=4,
    )
    return t.InternVLForConditionalGeneration(config), processor


def _fast_vlm() -> tuple[Any, Any]:
    """A convolutional encoder, whose batch normalisation counts every picture that it sees."""
    import transformers as t

    tokenizer = build_tokenizer()
    template = CHAT_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<|image_pad|>\n")
    square = {"height": 64, "width": 64}
    processor = t.LlavaProcessor(
        t.CLIPImageProcessor(size=square, crop_size=square),
        tokenizer,
        patch_size=32,
        vision_feature_select_strategy="full",
        image_token="<|image_pad|>",
        chat_template=template,
    )
    layers = {"embed_dims": (8, 16, 32, 64), "layers": (1, 1, 1, 1)}
    vision = t.TimmWrapperConfig(architecture="fastvit_t8", do_pooling=False, model_args=layers)
    vision.hidden_size = vision.num_features = 128
    config = t.FastVlmConfig(
        text_config={"model_type": "qwen2", **_text(tokenizer)},
        vision_config=vision,
        image_token_index=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
    )
    return t.FastVlmForConditionalGeneration(config), processor


BUILD: dict[str, Callable[[], tuple[Any, Any]]] = {
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "qwen3_5": _qwen3_5,
    "internvl": _internvl,
}


WITHOUT_FRAME = {"fast_vlm": _fast_vlm}
"""Families whose numbers nobody has told segrl the meaning of; a recipe gives their frame."""


def save_family(name: str, directory: Path, *, sharp: bool = False, wide: bool = False) -> Path:
    """A random checkpoint of a family with its processor. sharp: weights so large that what is attended to matters.
    wide: Qwen2.5-VL with heads of 32, the smallest that vLLM takes on a CPU.
    """
    torch.manual_seed(0)
    model, processor = _qwen2_5_vl(2) if wide else {**BUILD, **WITHOUT_FRAME}[name]()
    if sharp:
        for part in (model.model.language_model, model.lm_head):
            randomise(part, torch.Generator().manual_seed(0))
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory
