"""Dimensions of the models that segrl knows by name, and the sizes and times that follow from them.

From the models' configurations on the hub. A test builds each from that configuration in transformers,
without weights, and compares the number of parameters.
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
class Block:
    """A stack of transformer layers. attention: width of queries, keys and values together."""

    layers: int
    width: int
    mlp: int
    attention: int

    def kept(self, tokens: int, stream: int, wide: int, checkpointing: bool) -> float:
        """Bytes that a forward pass keeps for the backward pass.

        stream, wide: bytes of a number between the layers, and within them. With checkpointing every
        layer's input is kept, and while one is computed again what it keeps within. The counts are
        those that a test finds in transformers.
        """
        between = (self.layers + 2) * tokens * self.width * stream
        within = tokens * (11 * self.width + 4 * self.mlp + 2 * self.attention) * wide
        return between + within * (1 if checkpointing else self.layers)


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
    """A Qwen-VL policy. family: qwen2_vl, qwen2_5_vl (gated MLPs in the image encoder) or qwen3_vl (norms over
    heads, learned positions, several mergers); the first two have biases in the language model's attention.
    head: width of one head."""

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
    def is_qwen3(self) -> bool:
        """Whether it is Qwen3-VL's architecture."""
        return self.family == "qwen3_vl"

    def linears(self) -> Iterator[Linear]:
        """Every linear layer but the head, as adapters may be put on them."""
        text, bias = "model.language_model.layers.0.", not self.is_qwen3
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
        widen, narrow = _VISION_MLP[self.family]
        for name in widen:
            yield Linear(f"{block}mlp.{name}", see.width, see.mlp, see.layers, True)
        yield Linear(f"{block}mlp.{narrow}", see.mlp, see.width, see.layers, True)
        merged, mergers = see.width * see.merge**2, 1 + see.deepstack
        first, second = ("linear_fc1", "linear_fc2") if self.is_qwen3 else ("mlp.0", "mlp.2")
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
        norms = self.width * (2 * self.layers + 1) + (2 * self.head * self.layers if self.is_qwen3 else 0)
        vision_linears = sum(layer.parameters for layer in self._vision_linears())
        return self.linear_parameters - vision_linears + embeddings + norms + self.vision_parameters

    @property
    def vision_parameters(self) -> int:
        """Those of the image encoder, its mergers included."""
        see = self.vision
        patches, norms = 3 * 2 * see.patch**2 * see.width, see.width * (2 * see.layers + 1)
        rest = norms if self.family == "qwen2_5_vl" else 2 * norms  # RMS norms have no bias
        if self.is_qwen3:
            rest += see.width + see.positions * see.width + 2 * see.width * see.merge**2 * see.deepstack
        return sum(layer.parameters for layer in self._vision_linears()) + patches + rest

    @property
    def cache_numbers(self) -> int:
        """Keys and values of one token, in all layers."""
        return 2 * self.layers * self.kv_heads * self.head

    def image_tokens(self, image_wh: tuple[int, int]) -> int:
        """Tokens of the language model that an image of this size becomes."""
        side = self.vision.patch * self.vision.merge
        return max(1, round(image_wh[0] / side)) * max(1, round(image_wh[1] / side))


_VISION_MLP: Mapping[str, tuple[tuple[str, ...], str]] = {
    "qwen2_vl": (("fc1",), "fc2"),
    "qwen2_5_vl": (("gate_proj", "up_proj"), "down_proj"),
    "qwen3_vl": (("linear_fc1",), "linear_fc2"),
}
"""Layers of the image encoder's MLP: those that widen, and the one that narrows again."""


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


_SEE_2, _SEE_2_5, _SEE_2_5_LARGE = (
    Vision(1280, 32, 5120, patch=14),
    Vision(1280, 32, 3420, patch=14),
    Vision(1280, 32, 3456, patch=14),
)
_SEE_3, _SEE_3_LARGE = Vision(1024, 24, 4096, 16, 2304, 3), Vision(1152, 27, 4304, 16, 2304, 3)


def _qwen2(family: str, vision: Vision, *dimensions: int, vocabulary: int = 152064, tied: bool = False) -> PolicyModel:
    width, layers, heads, kv_heads, mlp = dimensions
    return PolicyModel(family, width, layers, heads, kv_heads, 128, mlp, vocabulary, tied, vision)


def _qwen3(vision: Vision, *dimensions: int, tied: bool = False) -> PolicyModel:
    width, layers, heads, mlp = dimensions
    return PolicyModel("qwen3_vl", width, layers, heads, 8, 128, mlp, 151936, tied, vision)


POLICIES: Mapping[str, PolicyModel] = {
    "Qwen/Qwen2-VL-2B-Instruct": _qwen2("qwen2_vl", _SEE_2, 1536, 28, 12, 2, 8960, vocabulary=151936, tied=True),
    "Qwen/Qwen2-VL-7B-Instruct": _qwen2("qwen2_vl", _SEE_2, 3584, 28, 28, 4, 18944),
    "Qwen/Qwen2.5-VL-3B-Instruct": _qwen2("qwen2_5_vl", _SEE_2_5, 2048, 36, 16, 2, 11008, vocabulary=151936, tied=True),
    "Qwen/Qwen2.5-VL-7B-Instruct": _qwen2("qwen2_5_vl", _SEE_2_5, 3584, 28, 28, 4, 18944),
    "Qwen/Qwen2.5-VL-32B-Instruct": _qwen2("qwen2_5_vl", _SEE_2_5_LARGE, 5120, 64, 40, 8, 27648),
    "Qwen/Qwen2.5-VL-72B-Instruct": _qwen2("qwen2_5_vl", _SEE_2_5_LARGE, 8192, 80, 64, 8, 29568),
    "Qwen/Qwen3-VL-2B-Instruct": _qwen3(_SEE_3, 2048, 28, 16, 6144, tied=True),
    "Qwen/Qwen3-VL-4B-Instruct": _qwen3(_SEE_3, 2560, 36, 32, 9728, tied=True),
    "Qwen/Qwen3-VL-8B-Instruct": _qwen3(_SEE_3_LARGE, 4096, 36, 32, 12288),
    "Qwen/Qwen3-VL-32B-Instruct": _qwen3(_SEE_3_LARGE, 5120, 64, 64, 25600),
}
"""By the name of the model on the hub; fine-tuned ones have the dimensions of the model that they began from."""

_SIZES = {  # what tells the sizes apart: embed, blocks, heads, windows, global blocks, background, parameters
    "tiny": SegmenterModel(96, (1, 2, 7, 2), (1, 2, 4, 8), (8, 4, 14, 7), (5, 7, 9), (7, 7), 31_440_721),
    "small": SegmenterModel(96, (1, 2, 11, 2), (1, 2, 4, 8), (8, 4, 14, 7), (7, 10, 13), (7, 7), 38_538_577),
    "base-plus": SegmenterModel(112, (2, 3, 16, 3), (2, 4, 8, 16), (8, 4, 14, 7), (12, 16, 20), (14, 14), 73_328_401),
    "large": SegmenterModel(144, (2, 6, 36, 4), (2, 4, 8, 16), (8, 4, 16, 8), (23, 33, 43), (7, 7), 216_924_865),
}
SEGMENTERS: Mapping[str, SegmenterModel] = {
    f"facebook/{version}-hiera-{size}": model for version in ("sam2", "sam2.1") for size, model in _SIZES.items()
}
"""By the name that a recipe gives; what is not here and has no slash runs on the CPU."""


def policy_model(name: str) -> PolicyModel:
    """The policy called `name`: in the table, a fine-tuned one that segrl knows, or a directory with a configuration.

    A directory with an adapter has the dimensions of the model below it. Raises RecipeError for another.
    """
    from segrl.policies.published import published

    path = Path(resolve_policy(name))
    if (path / "config.json").is_file():
        return from_config(json.loads((path / "config.json").read_text(encoding="utf-8")), name)
    if (path / "adapter_config.json").is_file():
        below = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
        return policy_model(str(below.get("base_model_name_or_path")))
    row = published(name)
    base = name if row is None else row.base_of(name)
    base = base.replace("-Thinking", "-Instruct") if base not in POLICIES else base
    if base not in POLICIES:
        raise RecipeError(
            f"segrl plan does not know the policy {name}: it knows {', '.join(POLICIES)}, and directories"
        )
    return POLICIES[base]


_VISION_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "qwen2_vl": {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "patch_size": 14, "spatial_merge_size": 2},
    "qwen2_5_vl": {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "patch_size": 14,
        "spatial_merge_size": 2,
    },
    "qwen3_vl": {"patch_size": 16, "spatial_merge_size": 2, "num_position_embeddings": 2304},
}
"""What configurations saved by some versions of transformers leave out because it is the family's default."""


def from_config(config: Mapping[str, Any], name: str = "the policy") -> PolicyModel:
    """The dimensions in a configuration of transformers: nested, or flat, as Qwen2-VL's and Qwen2.5-VL's are on the
    hub. Raises RecipeError for another family and for a dimension that is missing."""
    family = str(config.get("model_type"))
    if family not in _VISION_DEFAULTS:
        raise RecipeError(f"segrl plan knows Qwen2-VL, Qwen2.5-VL and Qwen3-VL, and {name} is a {family}")
    text = {**config, **config.get("text_config", {})}
    see = {**_VISION_DEFAULTS[family], **config.get("vision_config", {})}
    try:
        return _from_config(family, text, see)
    except KeyError as error:
        raise RecipeError(f"the configuration of {name} does not say its {error.args[0]}") from error


def _from_config(family: str, text: Mapping[str, Any], see: Mapping[str, Any]) -> PolicyModel:
    width = see["embed_dim"] if family == "qwen2_vl" else see["hidden_size"]
    vision = Vision(
        width=width,
        layers=see["depth"],
        mlp=round(width * see["mlp_ratio"]) if family == "qwen2_vl" else see["intermediate_size"],
        patch=see["patch_size"],
        positions=see.get("num_position_embeddings", 0),
        deepstack=len(see.get("deepstack_visual_indexes", ())),
        merge=see["spatial_merge_size"],
    )
    return PolicyModel(
        family,
        text["hidden_size"],
        text["num_hidden_layers"],
        text["num_attention_heads"],
        text["num_key_value_heads"],
        text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"],
        text["intermediate_size"],
        text["vocab_size"],
        bool(text.get("tie_word_embeddings", False)),
        vision,
    )


def segmenter_model(name: str) -> SegmenterModel | None:
    """The segmenter called `name`; None for one of a few megabytes. Raises RecipeError for one that is not known."""
    if name in SEGMENTERS:
        return SEGMENTERS[name]
    if name in ("grabcut", "tiny", "box"):
        return None
    raise RecipeError(f"segrl plan does not know the segmenter {name}: it knows {', '.join(SEGMENTERS)}")


BYTES = 2
"""Of a weight in bfloat16."""


@dataclass(frozen=True)
class Gpu:
    """flops: operations a second in bfloat16 that a model reaches. bandwidth: bytes a second that it reaches."""

    flops: float = 400e12
    bandwidth: float = 2.0e12


H100 = Gpu()
"""About two fifths of the peak of an H100 in operations, and three fifths of its bandwidth."""


@dataclass(frozen=True)
class AnswerCost:
    """Of one question. read, written: tokens of the prompt and of all samples. reading, writing: seconds."""

    read: int
    written: int
    reading: float
    writing: float

    @property
    def seconds(self) -> float:
        """Of both."""
        return self.reading + self.writing


def answer_cost(
    model: PolicyModel,
    image_wh: tuple[int, int],
    *,
    samples: int = 1,
    tokens: int = 250,
    text_tokens: int = 100,
    gpu: Gpu = H100,
) -> AnswerCost:
    """The cost of `samples` answers of `tokens` tokens each about an image and a prompt of `text_tokens` on a GPU.

    Reading a prompt takes two operations a weight and token, at the GPU's rate. Writing a token reads all weights once
    for all samples together, and each sample's keys and values, at the memory's rate: which is why eight samples take
    much less than eight times as long. The prompt is read once for all samples. Left out: the image encoder's own
    attention, the segmenter, and everything on the host. Not compared with a measured run.
    """
    prompt = model.image_tokens(image_wh) + text_tokens
    weights = model.parameters - model.vision_parameters
    see = 2 * model.vision_parameters * model.image_tokens(image_wh) * model.vision.merge**2
    reading = (2 * weights * prompt + see) / gpu.flops
    keys = 2 * model.layers * model.kv_heads * model.head * BYTES
    a_token = weights * BYTES + samples * keys * (prompt + tokens / 2)
    return AnswerCost(prompt, samples * tokens, reading, tokens * a_token / gpu.bandwidth)
