"""Configurations as on the hub (of models, generation, processors, segmenters), and one from a policy's dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segrl.memory_estimate.dimensions import PolicyModel

_ENDS = {"bos_token_id": 151643, "eos_token_id": 151645}
_VISION = {"image_token_id": 151655, "video_token_id": 151656, "vision_start_token_id": 151652}
_MROPE = {"type": "mrope", "mrope_section": [16, 24, 24]}


def _flat(family: str, vision: dict[str, Any], *sizes: int, vocabulary: int = 152064, tied: bool = False) -> Any:
    """Qwen2-VL's and Qwen2.5-VL's: what concerns the text lies beside `vision_config`."""
    width, layers, heads, kv_heads, mlp = sizes
    name = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL"}[family]
    return {
        "architectures": [f"{name}ForConditionalGeneration"],
        "attention_dropout": 0.0,
        **_ENDS,
        **_VISION,
        "vision_end_token_id": 151653,
        "vision_token_id": 151654,
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": 0.02,
        "intermediate_size": mlp,
        "max_position_embeddings": 128000,
        "max_window_layers": layers,
        "model_type": family,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": vision,
        "rope_scaling": _MROPE,
        "vocab_size": vocabulary,
    }


def _see_2(width: int) -> dict[str, Any]:
    return {
        "depth": 32,
        "embed_dim": 1280,
        "mlp_ratio": 4,
        "num_heads": 16,
        "in_chans": 3,
        "hidden_size": width,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    }


def _see_2_5(width: int, mlp: int = 3420) -> dict[str, Any]:
    return {
        "depth": 32,
        "hidden_act": "silu",
        "hidden_size": 1280,
        "intermediate_size": mlp,
        "num_heads": 16,
        "in_chans": 3,
        "out_hidden_size": width,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
    }


def _nested(*sizes: int, see: tuple[int, int, int], tied: bool = False) -> Any:
    """Qwen3-VL's: the text has a section of its own."""
    width, layers, heads, mlp = sizes
    depth, see_width, see_mlp = see
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "image_token_id": 151655,
        "video_token_id": 151656,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "text_config": {
            "attention_bias": False,
            "attention_dropout": 0.0,
            **_ENDS,
            "dtype": "bfloat16",
            "head_dim": 128,
            "hidden_act": "silu",
            "hidden_size": width,
            "initializer_range": 0.02,
            "intermediate_size": mlp,
            "max_position_embeddings": 262144,
            "model_type": "qwen3_vl_text",
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-06,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
            "rope_theta": 5000000,
            "tie_word_embeddings": tied,
            "use_cache": True,
            "vocab_size": 151936,
        },
        "tie_word_embeddings": tied,
        "transformers_version": "4.57.0.dev0",
        "vision_config": {
            "deepstack_visual_indexes": [5, 11, 17] if depth == 24 else [8, 16, 24],
            "depth": depth,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": see_width,
            "in_channels": 3,
            "initializer_range": 0.02,
            "intermediate_size": see_mlp,
            "model_type": "qwen3_vl",
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "out_hidden_size": width,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    }


_SMALL, _LARGE = (24, 1024, 4096), (27, 1152, 4304)
CONFIGS: dict[str, Any] = {
    "Qwen/Qwen2-VL-2B-Instruct": _flat("qwen2_vl", _see_2(1536), 1536, 28, 12, 2, 8960, vocabulary=151936, tied=True),
    "Qwen/Qwen2-VL-7B-Instruct": _flat("qwen2_vl", _see_2(3584), 3584, 28, 28, 4, 18944),
    "Qwen/Qwen2.5-VL-3B-Instruct": _flat(
        "qwen2_5_vl", _see_2_5(2048), 2048, 36, 16, 2, 11008, vocabulary=151936, tied=True
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": _flat("qwen2_5_vl", _see_2_5(3584), 3584, 28, 28, 4, 18944),
    "Qwen/Qwen2.5-VL-32B-Instruct": _flat("qwen2_5_vl", _see_2_5(5120, 3456), 5120, 64, 40, 8, 27648),
    "Qwen/Qwen2.5-VL-72B-Instruct": _flat("qwen2_5_vl", _see_2_5(8192, 3456), 8192, 80, 64, 8, 29568),
    "Qwen/Qwen3-VL-2B-Instruct": _nested(2048, 28, 16, 6144, see=_SMALL, tied=True),
    "Qwen/Qwen3-VL-4B-Instruct": _nested(2560, 36, 32, 9728, see=_SMALL, tied=True),
    "Qwen/Qwen3-VL-8B-Instruct": _nested(4096, 36, 32, 12288, see=_LARGE),
    "Qwen/Qwen3-VL-32B-Instruct": _nested(5120, 64, 64, 25600, see=_LARGE),
}
"""config.json by the model's name."""

SAVED_BY_4_49 = CONFIGS["Qwen/Qwen2.5-VL-7B-Instruct"] | {
    "vision_config": {
        "hidden_size": 1280,
        "in_chans": 3,
        "model_type": "qwen2_5_vl",
        "spatial_patch_size": 14,
        "tokens_per_second": 2,
        "torch_dtype": "bfloat16",
    },
}
"""What fine-tuned checkpoints of 7B often hold: transformers 4.49 left out what is the family's default."""

_STOPS = {"bos_token_id": 151643, "pad_token_id": 151643, "do_sample": True, "eos_token_id": [151645, 151643]}
GENERATION: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2-VL-2B-Instruct": _STOPS | {"temperature": 0.01, "top_p": 0.001, "top_k": 1},
    "Qwen/Qwen2.5-VL-3B-Instruct": _STOPS | {"repetition_penalty": 1.05, "temperature": 0.000001},
    "Qwen/Qwen2.5-VL-7B-Instruct": _STOPS | {"repetition_penalty": 1.05, "temperature": 0.000001},
    "Qwen/Qwen3-VL-8B-Instruct": _STOPS | {"top_k": 20, "top_p": 0.8, "repetition_penalty": 1.0, "temperature": 0.7},
    "Qwen/Qwen3-VL-8B-Thinking": _STOPS | {"top_k": 20, "top_p": 0.95, "repetition_penalty": 1.0, "temperature": 1.0},
}
"""generation_config.json by the model's name: sampling that no rollout and no greedy answer may take over."""

_CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
PREPROCESSOR: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        **_CLIP,
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
    },
    "qwen3_vl": {
        "size": {"longest_edge": 16777216, "shortest_edge": 65536},
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "Qwen3VLProcessor",
        "image_processor_type": "Qwen2VLImageProcessorFast",
    },
}
"""preprocessor_config.json by the family."""

VIDEO_PREPROCESSOR: dict[str, Any] = {
    "size": {"longest_edge": 25165824, "shortest_edge": 4096},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "Qwen3VLProcessor",
    "video_processor_type": "Qwen3VLVideoProcessor",
}
"""video_preprocessor_config.json of Qwen3-VL; Qwen2.5-VL has none."""


def transformers_config(model: PolicyModel, more: Mapping[str, Any] | None = None) -> Any:
    """The configuration in transformers of a policy with these dimensions. more: further keys, such as token ids."""
    from transformers import AutoConfig

    see = model.vision
    vision: dict[str, Any] = {
        "depth": see.layers,
        "num_heads": 16,
        "patch_size": see.patch,
        "spatial_merge_size": see.merge,
    }
    if model.family == "qwen2_vl":
        vision |= {"embed_dim": see.width, "hidden_size": model.width, "mlp_ratio": see.mlp // see.width}
    else:
        vision |= {"hidden_size": see.width, "intermediate_size": see.mlp, "out_hidden_size": model.width}
    text: dict[str, Any] = {
        "hidden_size": model.width,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head,
        "intermediate_size": model.mlp,
        "vocab_size": model.vocabulary,
        "tie_word_embeddings": model.tied,
    }
    if not model.is_qwen3:
        sections = [model.head // 8, 3 * model.head // 16, 3 * model.head // 16]
        text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}
    else:
        indexes = list(range(1, 1 + see.deepstack))
        vision |= {"num_position_embeddings": see.positions, "deepstack_visual_indexes": indexes}
    parts = {"text_config": text, "vision_config": vision, "tie_word_embeddings": model.tied}
    return AutoConfig.for_model(model.family, **parts, **(more or {}))
