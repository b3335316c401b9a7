"""GrabCut: it finds objects, rewards better prompts, repeats itself, and survives any valid prompt."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import cv2
import hostile_pictures
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tries import tries

from segrl.datasets.gold import gold_prompt
from segrl.masks import read_mask_values
from segrl.segmenters import grabcut
from segrl.segmenters.grabcut import GrabCut
from segrl.types import ORIGINAL, MaskPrompt


def scene(width: int = 96, height: int = 64) -> tuple[Image.Image, np.ndarray]:
    """Two touching discs of one shading on textured ground, and the mask of the left one."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(110, 12, (height, width, 3))
    ys, xs = np.mgrid[:height, :width]
    left = (xs - 34) ** 2 + (ys - 32) ** 2 <= 16**2
    right = ((xs - 62) ** 2 + (ys - 32) ** 2 <= 12**2) & ~left
    pixels[left] += (90, -60, -60)
    pixels[right] += (80, -50, -60)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), left


def masks_of(image: Image.Image, *prompts: MaskPrompt, **options) -> torch.Tensor:
    segmenter = GrabCut(**options)
    return segmenter.decode(segmenter.encode([image]), [prompts])[0]


def iou(mask: torch.Tensor, truth: np.ndarray) -> float:
    found = mask.numpy()
    return float((found & truth).sum() / (found | truth).sum())


TIGHT = MaskPrompt((18, 16, 51, 49), frame=ORIGINAL)


def test_better_prompts_make_better_masks():
    image, truth = scene()
    wide = (12.0, 8.0, 80.0, 56.0)
    loose = MaskPrompt(wide, frame=ORIGINAL)
    pointed = MaskPrompt(wide, ((34, 32), (62, 32), (62, 38)), (1, 0, 0), ORIGINAL)
    swapped = MaskPrompt(wide, ((34, 32), (62, 32)), (0, 1), ORIGINAL)
    tight, loose_iou, pointed_iou, swapped_iou = (
        iou(m, truth) for m in masks_of(image, TIGHT, loose, pointed, swapped)
    )
    assert tight > 0.9
    assert tight > loose_iou
    assert pointed_iou > loose_iou > swapped_iou


def test_points_alone_find_the_object():
    image, truth = scene()
    points = MaskPrompt(None, ((28, 28), (40, 38), (62, 32)), (1, 1, 0), ORIGINAL)
    only_background = MaskPrompt(None, ((5, 5),), (0,), ORIGINAL)
    found, nothing = masks_of(image, points, only_background)
    assert iou(found, truth) > 0.6
    assert nothing.sum() == 0


def test_a_mask_depends_on_its_own_prompt_only():
    image, _ = scene()
    prompts = [MaskPrompt((x, 10, x + 40, 55), frame=ORIGINAL) for x in range(0, 30, 3)]
    together = masks_of(image, *prompts, threads=4)
    backwards = masks_of(image, *prompts[::-1], threads=1).flip(0)
    assert torch.equal(together, backwards)


def test_opencv_keeps_its_thread_setting():
    before = cv2.getNumThreads()
    masks_of(scene()[0], TIGHT)
    assert cv2.getNumThreads() == before


def test_a_large_region_is_cut_at_the_size_asked_for():
    image, truth = scene()
    [mask] = masks_of(image, TIGHT, max_side=24)
    assert mask.shape == truth.shape
    assert iou(mask, truth) > 0.75


def test_a_collapsed_cut_falls_back_to_the_box():
    flat = Image.new("RGB", (30, 20), (7, 7, 7))
    plain, pointed = masks_of(
        flat, MaskPrompt((5, 5, 15, 15), frame=ORIGINAL), MaskPrompt((5, 5, 15, 15), ((6, 6),), (0,), ORIGINAL)
    )
    assert plain.sum() == 100
    assert 90 < pointed.sum() < 100
    assert not pointed[6, 6]


@pytest.mark.parametrize("box", [(3.2, 3.1, 3.4, 3.3), (0, 0, 1, 1), (39.5, 19.5, 40, 20), (0, 0, 40, 20)])
def test_tiny_and_full_boxes_have_masks(box):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (20, 40, 3), dtype=np.uint8))
    [mask] = masks_of(image, MaskPrompt(box, frame=ORIGINAL))
    assert mask.any()


@tries(60)
@given(data=st.data(), width=st.integers(1, 24), height=st.integers(1, 24), colours=st.sampled_from([1, 2, 255]))
def test_no_valid_prompt_raises(data, width, height, colours):
    x, y = st.floats(0, width - 0.01), st.floats(0, height - 0.01)
    points = data.draw(st.lists(st.tuples(x, y, st.integers(0, 1)), max_size=6))
    corners = data.draw(st.none() | st.tuples(x, y, st.floats(0.001, width), st.floats(0.001, height)))
    if corners is None and not points:
        return
    box = None
    if corners is not None:
        box = (corners[0], corners[1], min(corners[0] + corners[2], width), min(corners[1] + corners[3], height))
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, colours, (height, width, 3), dtype=np.uint8))
    prompt = MaskPrompt(box, tuple(p[:2] for p in points), tuple(p[2] for p in points), ORIGINAL)
    masks = masks_of(image, prompt)
    assert masks.shape == (1, height, width)
    assert masks.dtype == torch.bool


def test_prompts_with_background_points_only_ask_for_nothing():
    image, _ = scene()
    assert not masks_of(image, MaskPrompt(None, ((30, 30),), (0,), ORIGINAL)).any()


PENN_FUDAN = Path(__file__).parents[2].parent / "shared" / "data" / "penn-fudan"


@pytest.mark.long
@pytest.mark.skipif(not PENN_FUDAN.exists(), reason="needs the photographs beside the repository")
def test_photographs_reward_better_prompts():
    """34 people: 0.68 from a box, 0.71 with two points of each label, 0.48 with the labels swapped."""
    paths = sorted((PENN_FUDAN / "masks").glob("*.png"))[::5]
    ious = []
    for path in paths[:35]:
        truth = read_mask_values(path) == 1
        image = Image.open(PENN_FUDAN / "images" / f"{path.stem}.jpg").convert("RGB")
        gold = gold_prompt(truth, n_points=2, n_negatives=2)
        swapped = replace(gold, labels=tuple(1 - label for label in gold.labels))
        box = replace(gold, points_xy=(), labels=())
        ious.append([iou(mask, truth) for mask in masks_of(image, box, gold, swapped)])
    from_box, from_points, from_swapped = np.mean(ious, axis=0)
    assert from_box > 0.55
    assert from_points > from_box
    assert from_swapped < from_box - 0.15


def drawn(kind: str, side: int = 250) -> np.ndarray:
    """`(side, side)` uint8 whose parts repeat: pictures on which a minimum cut takes time by the square of the area."""
    ys, xs = np.mgrid[:side, :side]
    if kind == "dots":
        return np.where(np.random.default_rng(0).random((side, side)) < 0.02, 0, 240).astype(np.uint8)
    pattern = {"flat": 0 * xs, "halves": xs < side // 2, "chequers": (xs // 4 + ys // 4) % 2, "pixels": (xs + ys) % 2}
    return np.where(pattern[kind], 60, 200).astype(np.uint8)


@pytest.mark.parametrize("kind", ["flat", "halves", "chequers", "pixels", "dots"])
def test_a_cut_of_a_drawn_picture_ends(kind):
    image = Image.fromarray(drawn(kind)).convert("RGB")
    prompts = [MaskPrompt(box, frame=ORIGINAL) for box in ((3, 1, 245, 245), (4, 4, 239, 245), (8, 6, 244, 240))]
    begun = time.process_time()
    masks = masks_of(image, *prompts, threads=1)
    # Over a minute for a flat picture without the bound, 0.1 s with it; the margin is for busy machines.
    assert time.process_time() - begun < 10
    assert torch.equal(masks, masks_of(image, *prompts, threads=1))
    if kind == "flat":
        assert masks[0, 1:245, 3:245].all()


@pytest.mark.parametrize("max_side", [None, 4096, 512])
def test_no_region_is_cut_at_more_pixels_than_stated(max_side):
    """Time goes by the square of the pixels at worst: the bound of the one is the bound of the other."""
    image, _ = scene(900, 600)
    bgr = np.ascontiguousarray(np.asarray(image)[..., ::-1])
    labels = np.full((600, 900), grabcut.PROBABLE_FOREGROUND, np.uint8)
    labels[:60] = labels[-60:] = grabcut.BACKGROUND
    small = (341, 512) if max_side == 512 else (327, 490)
    if max_side != 512:
        assert small[0] * small[1] <= 1.01 * grabcut.MAX_PIXELS < 600 * 900
    smaller = cv2.resize(bgr, small[::-1], interpolation=cv2.INTER_AREA)
    cut = grabcut._grabcut(smaller, cv2.resize(labels, small[::-1], interpolation=cv2.INTER_NEAREST), None)
    enlarged = cv2.resize(cut.astype(np.float32), (900, 600), interpolation=cv2.INTER_LINEAR) > 0.5
    assert np.array_equal(grabcut._grabcut(bgr, labels, max_side), enlarged)


def seconds_of(pixels: np.ndarray, box: tuple[float, float, float, float]) -> float:
    """Processor time of a cut."""
    begun = time.process_time()
    masks_of(Image.fromarray(pixels), MaskPrompt(box, frame=ORIGINAL), threads=1)
    return time.process_time() - begun


@pytest.mark.long
def test_the_slowest_of_hundreds_of_hostile_pictures_ends():
    """All are cut at half the side, where a cut takes a sixteenth of the time at worst; the slowest at the full size.

    7 and 9 s measured in two runs, on a server CPU with AVX512/AMX; the margin is for other machines.
    """
    sides, half = round(grabcut.MAX_PIXELS**0.5), round(grabcut.MAX_PIXELS**0.5) // 2
    screened = [
        (seconds_of(pixels, box), i, j)
        for i, pixels in enumerate(hostile_pictures.pictures(half))
        for j, box in enumerate(hostile_pictures.boxes(half))
    ]
    worst = sorted(screened, reverse=True)[:8]
    pictures, boxes = hostile_pictures.pictures(sides), hostile_pictures.boxes(sides)
    slowest = [(seconds_of(pictures[i], boxes[j]), at_half, i, j) for at_half, i, j in worst]
    print(f"{len(screened)} cuts; the slowest in seconds, its half before it: {sorted(slowest)[-1]}; all: {slowest}")
    assert len(screened) > 200
    assert max(slowest)[0] < 60


def test_only_drawn_regions_are_cut_small():
    rng = np.random.default_rng(0)
    photograph = np.asarray(Image.fromarray(rng.integers(0, 255, (9, 9, 3), np.uint8)).resize((200, 200)))
    assert not grabcut._repeats(photograph)
    assert not grabcut._repeats(np.repeat(photograph[..., :1], 3, axis=2))  # grey ones have 256 colours at most
    assert grabcut._repeats(np.repeat(drawn("dots")[..., None], 3, axis=2))
