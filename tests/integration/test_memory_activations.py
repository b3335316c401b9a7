"""What segrl plan says that a forward pass keeps, against what PyTorch keeps of small models on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hub_configs import transformers_config
from transformers import AutoModelForImageTextToText

from segrl.memory_estimate.dimensions import Block, PolicyModel, Vision

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # the name that TRL calls checkpointing by

POLICY = PolicyModel("qwen2_5_vl", 512, 4, 8, 2, 64, 1408, 4096, True, Vision(256, 2, 704, patch=14))
IDS = {"vision_start_token_id": 4000, "vision_end_token_id": 4001, "image_token_id": 4002, "video_token_id": 4003}
PATCHES, PATCH_NUMBERS = 24 * 24, 3 * 2 * 14 * 14
FLOAT32, BFLOAT16 = 4, 2
TOLERANCE = 0.15


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(transformers_config(POLICY, IDS)).train()


def kept_bytes(model: Any, run: Callable[[], Any]) -> int:
    """Bytes of the different tensors that autograd keeps; weights and their copies by autocast left out."""
    shapes = {tuple(p.shape) for p in model.parameters()} | {tuple(p.shape)[::-1] for p in model.parameters()}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}  # held, so that no address is used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        is_copy = tensor.ndim == 2 and tensor.dtype == torch.bfloat16 and tuple(tensor.shape) in shapes
        if tensor.untyped_storage().data_ptr() not in weights and not is_copy:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", dtype=torch.bfloat16):
        run()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("tokens", [256, 768])
def test_language_model(model: Any, tokens: int):
    ids = torch.randint(10, 3000, (2, tokens // 2))
    block = Block(POLICY.layers, POLICY.width, POLICY.mlp, (POLICY.heads + 2 * POLICY.kv_heads) * POLICY.head)
    measured = kept_bytes(model, lambda: model.model.language_model(input_ids=ids, use_cache=False))
    assert block.kept(tokens, FLOAT32, BFLOAT16, checkpointing=False) == pytest.approx(measured, rel=TOLERANCE)
    within = (block.kept(tokens, FLOAT32, BFLOAT16, False) - block.kept(tokens, FLOAT32, BFLOAT16, True)) / 3
    model.gradient_checkpointing_enable({"use_reentrant": False})
    between = kept_bytes(model, lambda: model.model.language_model(input_ids=ids, use_cache=False))
    model.gradient_checkpointing_disable()
    assert block.kept(tokens, FLOAT32, BFLOAT16, True) - within == pytest.approx(between, rel=TOLERANCE)


def test_vision(model: Any):
    see = POLICY.vision
    grid, patches = torch.tensor([[1, 24, 24]]), torch.randn(PATCHES, PATCH_NUMBERS)
    measured = kept_bytes(model, lambda: model.model.visual(patches, grid_thw=grid))
    reckoned = Block(see.layers, see.width, see.mlp, 3 * see.width).kept(PATCHES, FLOAT32, BFLOAT16, False)
    assert reckoned == pytest.approx(measured, rel=TOLERANCE)
