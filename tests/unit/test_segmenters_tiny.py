"""The tiny segmenter: crops lie in the image, prompts are drawn where they are, masks depend on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tries import tries

from segrl import segmenters
from segrl.errors import FrameError, ModelError
from segrl.segmenters.tiny import LOGITS_SIDE, TinySegmenter
from segrl.segmenters.tiny.network import OUTSIDE, CropNetwork, carry_over, crop_around, fuse, rasterize
from segrl.types import ORIGINAL, RELATIVE_1000, MaskPrompt


@pytest.fixture(scope="module")
def tiny() -> TinySegmenter:
    return segmenters.load("tiny")


def scene(width: int = 200, height: int = 150) -> tuple[Image.Image, np.ndarray]:
    """A reddish ball, shaded, on blurred green ground; and its mask."""
    rng = np.random.default_rng(0)
    ground = Image.fromarray(rng.integers(60, 150, (8, 10, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(ground).astype(float) * (0.6, 1.0, 0.6)
    ys, xs = np.mgrid[:height, :width]
    ball = (xs - 90) ** 2 + (ys - 70) ** 2 <= 42**2
    pixels[ball] = (215, 60, 50)
    pixels[ball] -= ((xs - 75) ** 2 + (ys - 55) ** 2)[ball][:, None] / 60
    return Image.fromarray(np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)), ball


BALL_BOX = (48.0, 28.0, 133.0, 113.0)


def iou(mask: torch.Tensor, truth: np.ndarray) -> float:
    return float((mask.numpy() & truth).sum() / (mask.numpy() | truth).sum())


def ask(segmenter: TinySegmenter, image: Image.Image, *prompts: MaskPrompt) -> tuple[torch.Tensor, torch.Tensor]:
    return segmenter.decode_scored(segmenter.encode([image]), [prompts])[0]


def test_it_finds_a_ball_from_boxes_good_and_bad_and_expects_to(tiny):
    image, truth = scene()
    loose = (38.0, 12.0, 150.0, 120.0)
    masks, scores = ask(tiny, image, MaskPrompt(BALL_BOX, frame=ORIGINAL), MaskPrompt(loose, frame=ORIGINAL))
    assert masks.dtype == torch.bool
    assert masks.shape == (2, 150, 200)
    assert min(iou(mask, truth) for mask in masks) > 0.85
    assert scores.min() > 0.7


def test_a_mask_does_not_depend_on_what_else_is_asked(tiny):
    image, _ = scene()
    prompts = [MaskPrompt((x, 20.0, x + 70.0, 120.0), ((x + 30, 60.0),), (1,), ORIGINAL) for x in (10.0, 50.0, 90.0)]
    together, scores = ask(tiny, image, *prompts)
    for row, prompt in enumerate(prompts):
        alone, score = ask(tiny, image, prompt)
        assert torch.equal(alone[0], together[row])
        assert score[0] == scores[row]
    [mixed, _] = tiny.decode(tiny.encode([image, image.rotate(90)]), [prompts[::-1], prompts])
    assert torch.equal(mixed.flip(0), together)
    with torch.autocast("cpu", torch.bfloat16):  # training runs inside one
        assert torch.equal(ask(tiny, image, *prompts)[0], together)


def test_an_earlier_mask_is_used_and_covers_the_image(tiny):
    image, truth = scene()
    embedding = tiny.encode([image])
    prompt = MaskPrompt((60.0, 40.0, 120.0, 100.0), frame=ORIGINAL)
    [low] = tiny.decode_logits(embedding, [[prompt]])
    assert low.logits.shape == (1, 150, 200)
    assert iou((low.logits > 0)[0], tiny.decode(embedding, [[prompt]])[0][0].numpy()) > 0.9
    wrong = torch.full((150, 200), OUTSIDE)
    wrong[100:140, 150:190] = 8.0
    asked = [MaskPrompt(prompt.box_xyxy, frame=ORIGINAL, prior_logits=logits) for logits in (low.logits[0], wrong)]
    after_own, after_wrong = ask(tiny, image, *asked)[0]
    assert iou(after_own, truth) > 0.8
    assert not torch.equal(after_own, after_wrong)


def test_logits_of_a_large_image_are_small(tiny):
    image = scene()[0].resize((1000, 750))
    [low] = tiny.decode_logits(tiny.encode([image]), [[MaskPrompt((240, 140, 665, 565), frame=ORIGINAL)]])
    assert low.logits.shape == (1, LOGITS_SIDE * 3 // 4, LOGITS_SIDE)


def test_a_prompt_with_background_points_only_asks_for_nothing(tiny):
    masks, scores = ask(tiny, scene()[0], MaskPrompt(None, ((5, 5),), (0,), ORIGINAL))
    assert masks.sum() == 0
    assert scores[0] < 0.001


def test_other_frames_are_refused_and_nothing_asked_gives_empty_stacks(tiny):
    embeddings = tiny.encode([scene()[0]])
    with pytest.raises(FrameError):
        tiny.decode(embeddings, [[MaskPrompt((0, 0, 10, 10), frame=RELATIVE_1000)]])
    assert tiny.decode(embeddings, [[]])[0].shape == (0, 150, 200)
    assert len(tiny.decode_logits(embeddings, [[]])[0].logits) == 0


def test_what_cannot_be_loaded_is_one_line(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"nothing")
    for options, expected in (
        ({"weights": str(file)}, "no weights of the tiny segmenter"),
        ({"weights": str(tmp_path / "none")}, "no weights of the tiny segmenter"),
        ({"passes": 0}, "passes is a whole number from 1 on"),
        ({"pases": 1}, "did you mean passes?"),
        ({"device": "gpu"}, "torch finds no device"),
    ):
        with pytest.raises(ModelError, match=expected) as caught:
            segmenters.load("tiny", **options)
        assert "\n" not in str(caught.value)


def test_folding_the_normalisations_in_changes_nothing():
    torch.manual_seed(0)
    network = CropNetwork()
    network(torch.randn(4, 7, 32, 32))  # statistics other than the initial ones
    inputs = torch.randn(2, 7, 32, 32)
    with torch.no_grad():
        before = network.eval()(inputs)
        after = fuse(network)(inputs)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


sides = st.integers(1, 60)
numbers = st.floats(-20, 80, allow_nan=False)


@tries(40)
@given(data=st.data(), width=sides, height=sides)
def test_no_valid_prompt_raises(tiny, data, width, height):
    x1, y1 = data.draw(numbers), data.draw(numbers)
    box = (x1, y1, x1 + data.draw(st.floats(0.01, 90)), y1 + data.draw(st.floats(0.01, 90)))
    points = tuple(data.draw(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=3)))
    labels = tuple(data.draw(st.integers(0, 1)) for _ in points)
    prompts = [MaskPrompt(box, frame=ORIGINAL), MaskPrompt(None, points, labels, ORIGINAL)]
    masks, scores = ask(tiny, Image.new("RGB", (width, height), (90, 90, 90)), *prompts)
    assert masks.shape == (2, height, width)
    assert ((scores >= 0) & (scores <= 1)).all()


@given(width=st.integers(1, 500), height=st.integers(1, 500), data=st.data())
def test_crops_lie_in_the_image_and_hold_what_is_in_it(width, height, data):
    x1, y1 = data.draw(st.floats(-10, width - 1)), data.draw(st.floats(-10, height - 1))
    box = (x1, y1, x1 + data.draw(st.floats(1, 300)), y1 + data.draw(st.floats(1, 300)))
    left, top, right, bottom = crop_around((height, width), box, [], None)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert left <= max(x1, 0) + 0.5
    assert right >= min(box[2], width) - 0.5


def test_a_prompt_is_drawn_where_it_is():
    crop = (10, 20, 50, 60)
    maps = rasterize(crop, 80, (20.25, 30.0, 40.0, 50.5), [(30, 40), (12, 22)], [1, 0], None)
    assert ((maps[0] + 1) / 2).sum() == pytest.approx((40 - 20.25) * 2 * (50.5 - 30) * 2, rel=1e-5)
    assert maps[0, 40, 40] == 1
    assert maps[0, 0, 0] == -1
    assert np.unravel_index(maps[1].argmax(), maps[1].shape) in ((40, 40), (41, 41), (40, 41), (41, 40))
    assert np.unravel_index(maps[2].argmax(), maps[2].shape) in ((4, 4), (5, 5), (4, 5), (5, 4))
    assert not maps[3].any()
    assert not rasterize(crop, 80, None, [], [], None).any()


def test_logits_are_carried_from_one_crop_to_another():
    seen = (10, 20, 50, 60)
    slope = np.add.outer(np.arange(40.0), 2 * np.arange(40.0)).astype(np.float32)
    np.testing.assert_allclose(carry_over(slope, seen, seen, (40, 40)), slope, atol=1e-3)
    part = carry_over(slope, seen, (20, 30, 30, 40), (10, 10))
    np.testing.assert_allclose(part, slope[10:20, 10:20], atol=1e-3)
    wider = carry_over(slope, seen, (0, 0, 60, 80), (60, 80))
    assert (wider[:19] == OUTSIDE).all()
    np.testing.assert_allclose(wider[20:60, 10:50], slope, atol=1e-3)
