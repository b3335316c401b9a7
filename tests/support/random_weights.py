"""Checkpoints of the SAM family with random weights, for tests and benchmarks: real shapes, no download.

Their masks mean nothing, but they depend on image and prompt as strongly as trained ones do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

DECODER = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
"""A small mask decoder."""
MEMORY = {
    "memory_attention_hidden_size": 32,
    "memory_attention_num_layers": 1,
    "memory_attention_num_attention_heads": 1,
    "memory_attention_feed_forward_hidden_size": 32,
    "memory_attention_rope_feat_sizes": [4, 4],
    "memory_encoder_hidden_size": 32,
    "memory_encoder_output_channels": 16,
    "memory_fuser_embed_dim": 32,
    "memory_fuser_intermediate_dim": 32,
    "mask_downsampler_embed_dim": 32,
}
"""A small memory for the video classes, which a segmenter of images does not load."""


def save_random(kind: str, path: Path | str, *, seed: int = 0) -> Path:
    """Write a checkpoint of `kind` (a key of `KINDS`) with its processor to the directory `path`; returns it."""
    import torch
    from safetensors.torch import save_file

    directory = Path(path)
    model, processor = KINDS[kind]()
    randomise(model, torch.Generator().manual_seed(seed))
    model.config.save_pretrained(directory)
    # Not save_pretrained: it writes SAM 3's tracker under names that the hub does not use.
    weights = {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    processor.save_pretrained(directory)
    return directory


def randomise(model: Any, generator: torch.Generator) -> None:
    """Weights ~ N(0, 1 / fan-in), so that signals keep their size; vectors stay near what they were."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
            else:
                parameter += torch.randn(parameter.shape, generator=generator) * 0.02
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    if norms and hasattr(model, "get_image_embeddings"):  # those of a text encoder keep the statistics they start with
        _settle(model, norms, generator)


def _settle(model: Any, norms: Sequence[torch.nn.BatchNorm2d], generator: torch.Generator) -> None:
    """Give batch norms the statistics of noise, as training would; without them signals grow layer by layer.

    Their gain is made small, so that a deep stack of residual branches does not amplify rounding.
    """
    import torch

    for norm in norms:
        norm.momentum = None
        norm.weight.data *= 0.3
    side = model.config.prompt_encoder_config.image_size
    model.train().get_image_embeddings(torch.randn((4, 3, side, side), generator=generator))
    model.eval()


def _square_processor(name: str, image_processor: str, side: int) -> Any:
    import transformers

    images = getattr(transformers, image_processor)(
        size={"height": side, "width": side}, mask_size={"height": side // 4, "width": side // 4}
    )
    return getattr(transformers, name)(images)


def _tiny_hiera() -> dict[str, Any]:
    """SAM 2's vision configuration at 64×64."""
    backbone = {
        "hidden_size": 8,
        "image_size": [64, 64],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [4, 2, 2, 2],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [2, 2],
    }
    return {
        "backbone_config": {"model_type": "sam2_hiera_det_model", **backbone},
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 32,
    }


def _sam2() -> tuple[Any, Any]:
    from transformers import Sam2Config, Sam2Model

    config = Sam2Config(
        vision_config={"model_type": "sam2_vision_model", **_tiny_hiera()},
        prompt_encoder_config={"hidden_size": 32, "image_size": 64},
        mask_decoder_config=DECODER,
    )
    return Sam2Model(config), _square_processor("Sam2Processor", "Sam2ImageProcessor", 64)


def _sam2_video() -> tuple[Any, Any]:
    """As the hub has SAM 2.1: weights and configuration of the video class."""
    from transformers import Sam2VideoConfig, Sam2VideoModel

    config = Sam2VideoConfig(
        vision_config={"model_type": "sam2_vision_model", **_tiny_hiera()},
        prompt_encoder_config={"hidden_size": 32, "image_size": 64},
        mask_decoder_config=DECODER,
        image_size=64,
        **MEMORY,
    )
    return Sam2VideoModel(config), _square_processor("Sam2Processor", "Sam2ImageProcessor", 64)


def _tiny_sam3_vision() -> dict[str, Any]:
    """SAM 3's vision configuration at 56×56."""
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "pretrain_image_size": 28,
        "window_size": 2,
        "global_attn_indexes": [1],
    }
    sizes = [[16, 16], [8, 8], [4, 4]]
    return {
        "model_type": "sam3_vision_model",
        "backbone_config": backbone,
        "fpn_hidden_size": 32,
        "backbone_feature_sizes": sizes,
    }


LETTERS = "abcdefghijklmnopqrstuvwxyz"
LETTER_ENDS = [f"{letter}</w>" for letter in LETTERS]
SAM3_PROMPTS = {"hidden_size": 32, "image_size": 56, "patch_size": 14}


def _sam3_tracker() -> tuple[Any, Any]:
    from transformers import Sam3TrackerConfig, Sam3TrackerModel

    config = Sam3TrackerConfig(
        vision_config=_tiny_sam3_vision(), prompt_encoder_config=SAM3_PROMPTS, mask_decoder_config=DECODER
    )
    return Sam3TrackerModel(config), _square_processor("Sam3TrackerProcessor", "Sam3ImageProcessor", 56)


def _tiny_sam3_detector() -> dict[str, Any]:
    """The part of SAM 3 that takes words."""
    transformer = {"hidden_size": 32, "num_attention_heads": 2}
    layers = {**transformer, "num_layers": 1, "intermediate_size": 32}
    text = {
        "vocab_size": len(CLIP_VOCABULARY),
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "max_position_embeddings": 32,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    return {
        "vision_config": _tiny_sam3_vision(),
        "text_config": {"model_type": "clip_text_model", **transformer, **text, "projection_dim": 16},
        "geometry_encoder_config": layers,
        "detr_encoder_config": layers,
        "detr_decoder_config": {**layers, "num_queries": 5},
        "mask_decoder_config": {**transformer, "num_upsampling_stages": 3},
    }


CLIP_VOCABULARY = {token: i for i, token in enumerate(["<|startoftext|>", "<|endoftext|>", *LETTERS, *LETTER_ENDS])}


def _sam3_processor() -> Any:
    from transformers import CLIPTokenizer, Sam3ImageProcessor, Sam3Processor

    images = Sam3ImageProcessor(size={"height": 56, "width": 56}, mask_size={"height": 16, "width": 16})
    return Sam3Processor(images, CLIPTokenizer(vocab=CLIP_VOCABULARY, merges=[]))


def _sam3() -> tuple[Any, Any]:
    """SAM 3's concept segmenter alone."""
    from transformers import Sam3Config, Sam3Model

    return Sam3Model(Sam3Config(**_tiny_sam3_detector())), _sam3_processor()


def _sam3_lite_text() -> tuple[Any, Any]:
    """SAM 3 with the small text encoder."""
    from transformers import Sam3LiteTextConfig, Sam3LiteTextModel

    detector = _tiny_sam3_detector()
    text = {
        "vocab_size": len(CLIP_VOCABULARY),
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "projection_dim": 16,
    }
    return Sam3LiteTextModel(Sam3LiteTextConfig(**{**detector, "text_config": text})), _sam3_processor()


def _sam3_video() -> tuple[Any, Any]:
    """As the hub has SAM 3: detector and tracker in one checkpoint of the video class."""
    from transformers import Sam3VideoConfig, Sam3VideoModel

    detector = {"model_type": "sam3", **_tiny_sam3_detector()}
    tracker = {
        "model_type": "sam3_tracker_video",
        "vision_config": _tiny_sam3_vision(),
        "prompt_encoder_config": SAM3_PROMPTS,
        "mask_decoder_config": DECODER,
        "image_size": 56,
        **MEMORY,
    }
    config = Sam3VideoConfig(detector_config=detector, tracker_config=tracker)
    return Sam3VideoModel(config), _sam3_processor()


def _edgetam() -> tuple[Any, Any]:
    from transformers import EdgeTamConfig, EdgeTamModel, TimmWrapperConfig

    layers = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    vision = {
        "model_type": "edgetam_vision_model",
        "backbone_config": TimmWrapperConfig(architecture="repvit_m1", model_args=layers),
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 32,
    }
    config = EdgeTamConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": 64},
        mask_decoder_config=DECODER,
    )
    return EdgeTamModel(config), _square_processor("Sam2Processor", "Sam2ImageProcessor", 64)


def _padded_processor(name: str) -> Any:
    import transformers

    images = transformers.SamImageProcessor(
        size={"longest_edge": 64},
        pad_size={"height": 64, "width": 64},
        mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    )
    return getattr(transformers, name)(images)


TINY_VIT = {
    "hidden_size": 16,
    "output_channels": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 64,
    "window_size": 2,
    "global_attn_indexes": [1],
    "num_pos_feats": 16,
    "mlp_dim": 32,
}
PROMPTS = {"hidden_size": 32, "image_size": 64, "patch_size": 16}


def _sam() -> tuple[Any, Any]:
    from transformers import SamConfig, SamModel

    config = SamConfig(
        vision_config=TINY_VIT,
        prompt_encoder_config={**PROMPTS, "image_embedding_size": 4},
        mask_decoder_config=DECODER,
    )
    return SamModel(config), _padded_processor("SamProcessor")


def _sam_hq() -> tuple[Any, Any]:
    from transformers import SamHQConfig, SamHQModel

    config = SamHQConfig(
        vision_config=TINY_VIT,
        prompt_encoder_config={**PROMPTS, "image_embedding_size": 4},
        mask_decoder_config={**DECODER, "vit_dim": 16},
    )
    return SamHQModel(config), _padded_processor("SamHQProcessor")


def _hiera_tiny() -> tuple[Any, Any]:
    """SAM 2.1-tiny's shape at 1024."""
    from transformers import Sam2Config, Sam2Model

    return Sam2Model(Sam2Config()), _square_processor("Sam2Processor", "Sam2ImageProcessor", 1024)


def _hiera_large() -> tuple[Any, Any]:
    """SAM 2.1-large's shape at 1024."""
    from transformers import Sam2Config, Sam2Model

    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 144,
        "num_attention_heads": 2,
        "blocks_per_stage": [2, 6, 36, 4],
        "embed_dim_per_stage": [144, 288, 576, 1152],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "window_size_per_stage": [8, 4, 16, 8],
        "global_attention_blocks": [23, 33, 43],
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": backbone,
        "backbone_channel_list": [1152, 576, 288, 144],
    }
    return Sam2Model(Sam2Config(vision_config=vision)), _square_processor("Sam2Processor", "Sam2ImageProcessor", 1024)


KINDS: Mapping[str, Callable[[], tuple[Any, Any]]] = {
    "sam": _sam,
    "sam_hq": _sam_hq,
    "sam2": _sam2,
    "sam2_video": _sam2_video,
    "sam3_tracker": _sam3_tracker,
    "sam3_video": _sam3_video,
    "sam3": _sam3,
    "sam3_lite_text": _sam3_lite_text,
    "edgetam": _edgetam,
    "hiera_tiny": _hiera_tiny,
    "hiera_large": _hiera_large,
}
"""What can be built; all but the last two are tiny, at 56 to 64 pixels a side."""
