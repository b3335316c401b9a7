"""Encoding an image once for all its copies changes the time and nothing else."""

from __future__ import annotations

import pytest
import torch

from segrl.tiny.model import Shape, build, build_processor
from segrl.training.speed import first_equal, share_images

SMALL = Shape(width=32, layers=2, heads=2, mlp=64, vision_width=32, vision_layers=2, vision_heads=2, vision_mlp=32)


def test_first_equal_wants_equal_values_and_equal_grids():
    a, b = torch.arange(24.0).reshape(4, 6), torch.arange(24.0).flip(0).reshape(4, 6)
    images = [a, b, a.clone(), a.clone(), b.clone()]
    square, line = [1, 2, 2], [1, 1, 4]
    assert first_equal(images, [square, square, square, line, square]) == [0, 1, 0, 3, 1]


@pytest.fixture
def batch():
    """Six rows: image 0 three times, image 1 twice, image 2 once."""
    from segrl.policies import messages
    from segrl.tiny.scenes import TinyScenes

    scenes = TinyScenes(3, seed=5)
    asked = [messages(scenes[i].image, "Identify and segment the object") for i in (0, 1, 0, 2, 1, 0)]
    return build_processor(SMALL).apply_chat_template(
        asked, tokenize=True, return_dict=True, add_generation_prompt=True, processor_kwargs={"return_tensors": "pt"}
    )


def loss_and_gradients(model, batch):
    model.zero_grad()
    loss = model(**batch, labels=batch["input_ids"]).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_loss_gradients_and_generation_stay(batch):
    model = build(SMALL).train()
    plain_loss, plain = loss_and_gradients(model, batch)
    patches, tower_rows = int(batch["image_grid_thw"][0].prod()), []
    visual = model.model.visual
    encode = visual.patch_embed.forward
    visual.patch_embed.forward = lambda rows: (tower_rows.append(len(rows)), encode(rows))[1]
    written = model.eval().generate(**batch, max_new_tokens=3, do_sample=False)
    assert share_images(model)
    assert share_images(model)
    assert torch.equal(model.generate(**batch, max_new_tokens=3, do_sample=False), written)
    loss, shared = loss_and_gradients(model.train(), batch)
    assert tower_rows == [6 * patches, 3 * patches, 3 * patches]
    torch.testing.assert_close(loss, plain_loss)
    assert shared.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(shared[name], gradient, rtol=1e-4, atol=1e-6)


def test_a_model_without_such_a_tower_is_left_alone():
    assert not share_images(torch.nn.Linear(2, 2))
