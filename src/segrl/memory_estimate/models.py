"""Dimensions of the models that recipes name, and the sizes that follow from them.

From the models' configurations on the hub. A test builds each in transformers without weights and
compares the number of parameters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segrl.errors import RecipeError
from segrl.tiny import resolve_policy


@dataclass(frozen=True)
class Linear:
    """`count` equal linear layers; `name` as the module is called in one of them."""

    name: str
    inputs: int
    outputs: int
    count: int
    bias: bool = False

    @property
    def parameters(self) -> int:
        """Of all of them."""
        return self.count * (self.inputs * self.outputs + (self.outputs if self.bias else 0))


@dataclass(frozen=True)
class Vision:
    """The image encoder. positions: learned position embeddings, 0 for rotary ones alone; deepstack: extra mergers."""

    width: int
    layers: int
    mlp: int
    patch: int
    positions: int = 0
    deepstack: int = 0
    merge: int = 2


@dataclass(frozen=True)
class PolicyModel:
    """A Qwen-VL policy. family: qwen2_5_vl (gated MLPs in the image encoder, biases in the language model's
    attention) or qwen3_vl (norms over heads, learned positions, several mergers). head: width of one head."""

    family: str
    width: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    mlp: int
    vocabulary: int
    tied: bool
    vision: Vision

    @property
    def is_qwen2_5(self) -> bool:
        """Whether it is Qwen2.5-VL's architecture, not Qwen3-VL's."""
        return self.family == "qwen2_5_vl"

    def linears(self) -> Iterator[Linear]:
        """Every linear layer but the head, as adapters may be put on them."""
        text, bias = "model.language_model.layers.0.", self.is_qwen2_5
        q, kv = self.heads * self.head, self.kv_heads * self.head
        yield Linear(f"{text}self_attn.q_proj", self.width, q, self.layers, bias)
        yield Linear(f"{text}self_attn.k_proj", self.width, kv, self.layers, bias)
        yield Linear(f"{text}self_attn.v_proj", self.width, kv, self.layers, bias)
        yield Linear(f"{text}self_attn.o_proj", q, self.width, self.layers)
        yield Linear(f"{text}mlp.gate_proj", self.width, self.mlp, self.layers)
        yield Linear(f"{text}mlp.up_proj", self.width, self.mlp, self.layers)
        yield Linear(f"{text}mlp.down_proj", self.mlp, self.width, self.layers)
        yield from self._vision_linears()

    def _vision_linears(self) -> Iterator[Linear]:
        see, block = self.vision, "model.visual.blocks.0."
        yield Linear(f"{block}attn.qkv", see.width, 3 * see.width, see.layers, True)
        yield Linear(f"{block}attn.proj", see.width, see.width, see.layers, True)
        if self.is_qwen2_5:
            yield Linear(f"{block}mlp.gate_proj", see.width, see.mlp, see.layers, True)
            yield Linear(f"{block}mlp.up_proj", see.width, see.mlp, see.layers, True)
            yield Linear(f"{block}mlp.down_proj", see.mlp, see.width, see.layers, True)
        else:
            yield Linear(f"{block}mlp.linear_fc1", see.width, see.mlp, see.layers, True)
            yield Linear(f"{block}mlp.linear_fc2", see.mlp, see.width, see.layers, True)
        merged, mergers = see.width * see.merge**2, 1 + see.deepstack
        first, second = ("mlp.0", "mlp.2") if self.is_qwen2_5 else ("linear_fc1", "linear_fc2")
        yield Linear(f"model.visual.merger.{first}", merged, merged, mergers, True)
        yield Linear(f"model.visual.merger.{second}", merged, self.width, mergers, True)

    @property
    def linear_parameters(self) -> int:
        """What 4-bit quantization packs."""
        return sum(layer.parameters for layer in self.linears())

    @property
    def parameters(self) -> int:
        """All of them."""
        embeddings = self.vocabulary * self.width * (1 if self.tied else 2)
        norms = self.width * (2 * self.layers + 1) + (0 if self.is_qwen2_5 else 2 * self.head * self.layers)
        vision_linears = sum(layer.parameters for layer in self._vision_linears())
        return self.linear_parameters - vision_linears + embeddings + norms + self.vision_parameters

    @property
    def vision_parameters(self) -> int:
        """Those of the image encoder, its mergers included."""
        see = self.vision
        patches = 3 * 2 * see.patch**2 * see.width
        if self.is_qwen2_5:
            rest = see.width * (2 * see.layers + 1)
        else:
            merged = see.width * see.merge**2
            rest = see.width + see.positions * see.width + 4 * see.width * see.layers
            rest += 2 * see.width + 2 * merged * see.deepstack
        return sum(layer.parameters for layer in self._vision_linears()) + patches + rest

    def image_tokens(self, image_wh: tuple[int, int]) -> int:
        """Tokens of the language model that an image of this size becomes."""
        side = self.vision.patch * self.vision.merge
        return max(1, round(image_wh[0] / side)) * max(1, round(image_wh[1] / side))


@dataclass(frozen=True)
class SegmenterModel:
    """A SAM 2 at 1024×1024. embed: channels of the first stage; the rest is what tells the sizes apart.

    parameters: those of the image model, without the video's memory. embedding: numbers kept per image.
    """

    embed: int
    blocks: tuple[int, ...]
    heads: tuple[int, ...]
    windows: tuple[int, ...]
    global_blocks: tuple[int, ...]
    background: tuple[int, int]
    parameters: int
    embedding: int = 256**2 * 32 + 128**2 * 64 + 64**2 * 256


_SEE_QWEN2_5 = Vision(1280, 32, 3420, patch=14)
POLICIES: Mapping[str, PolicyModel] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": PolicyModel("qwen2_5_vl", 2048, 36, 16, 2, 128, 11008, 151936, True, _SEE_QWEN2_5),
    "Qwen/Qwen2.5-VL-7B-Instruct": PolicyModel("qwen2_5_vl", 3584, 28, 28, 4, 128, 18944, 152064, False, _SEE_QWEN2_5),
    "Qwen/Qwen3-VL-4B-Instruct": PolicyModel(
        "qwen3_vl", 2560, 36, 32, 8, 128, 9728, 151936, True, Vision(1024, 24, 4096, 16, 2304, 3)
    ),
    "Qwen/Qwen3-VL-8B-Instruct": PolicyModel(
        "qwen3_vl", 4096, 36, 32, 8, 128, 12288, 151936, False, Vision(1152, 27, 4304, 16, 2304, 3)
    ),
}
"""By the name that a recipe gives."""

_LARGE = SegmenterModel(144, (2, 6, 36, 4), (2, 4, 8, 16), (8, 4, 16, 8), (23, 33, 43), (7, 7), 216_924_865)
_SMALL = SegmenterModel(96, (1, 2, 11, 2), (1, 2, 4, 8), (8, 4, 14, 7), (7, 10, 13), (7, 7), 38_538_577)
SEGMENTERS: Mapping[str, SegmenterModel] = {
    "facebook/sam2-hiera-large": _LARGE,
    "facebook/sam2.1-hiera-large": _LARGE,
    "facebook/sam2.1-hiera-small": _SMALL,
}
"""By the name that a recipe gives; what is not here and has no slash runs on the CPU."""


def policy_model(name: str) -> PolicyModel:
    """The policy called `name`: in the table, or a directory with a configuration. Raises RecipeError for another."""
    path = Path(resolve_policy(name)) / "config.json"
    if path.is_file():
        return from_config(json.loads(path.read_text(encoding="utf-8")), name)
    if name not in POLICIES:
        raise RecipeError(
            f"segrl plan does not know the policy {name}: it knows {', '.join(POLICIES)}, and directories"
        )
    return POLICIES[name]


def from_config(config: Mapping[str, Any], name: str = "the policy") -> PolicyModel:
    """The dimensions in a configuration of transformers. Raises RecipeError for another family."""
    if config.get("model_type") not in ("qwen2_5_vl", "qwen3_vl"):
        raise RecipeError(f"segrl plan knows Qwen2.5-VL and Qwen3-VL, and {name} is a {config.get('model_type')}")
    text, see = config.get("text_config", config), config["vision_config"]
    head = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    vision = Vision(
        width=see["hidden_size"],
        layers=see["depth"],
        mlp=see["intermediate_size"],
        patch=see["patch_size"],
        positions=see.get("num_position_embeddings", 0),
        deepstack=len(see.get("deepstack_visual_indexes", ())),
        merge=see["spatial_merge_size"],
    )
    return PolicyModel(
        config["model_type"],
        text["hidden_size"],
        text["num_hidden_layers"],
        text["num_attention_heads"],
        text["num_key_value_heads"],
        head,
        text["intermediate_size"],
        text["vocab_size"],
        bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
        vision,
    )


def transformers_config(model: PolicyModel, more: Mapping[str, Any] | None = None) -> Any:
    """The configuration in transformers of a policy with these dimensions. more: further keys, such as token ids."""
    from transformers import AutoConfig

    see = model.vision
    vision: dict[str, Any] = {
        "depth": see.layers,
        "hidden_size": see.width,
        "intermediate_size": see.mlp,
        "num_heads": 16,
        "patch_size": see.patch,
        "spatial_merge_size": see.merge,
        "out_hidden_size": model.width,
    }
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
    if model.is_qwen2_5:
        sections = [model.head // 8, 3 * model.head // 16, 3 * model.head // 16]
        text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}
    else:
        indexes = list(range(1, 1 + see.deepstack))
        vision |= {"num_position_embeddings": see.positions, "deepstack_visual_indexes": indexes}
    parts = {"text_config": text, "vision_config": vision, "tie_word_embeddings": model.tied}
    return AutoConfig.for_model(model.family, **parts, **(more or {}))


def segmenter_model(name: str) -> SegmenterModel | None:
    """The segmenter called `name`; None for one of a few megabytes. Raises RecipeError for one that is not known."""
    if name in SEGMENTERS:
        return SEGMENTERS[name]
    if name in ("grabcut", "tiny", "box"):
        return None
    raise RecipeError(f"segrl plan does not know the segmenter {name}: it knows {', '.join(SEGMENTERS)}")
