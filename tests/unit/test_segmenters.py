"""The segmenter protocol, the fake, and the one function that turns answers into masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from segrl import segmenters
from segrl.errors import FrameError
from segrl.images import content_id
from segrl.segmenters.grabcut import BoxSegmenter
from segrl.types import ORIGINAL, RELATIVE_1000, Answer, Frame, MaskPrompt, Status


def image(width: int = 40, height: int = 20, value: int = 0) -> Image.Image:
    return Image.new("RGB", (width, height), (value, value, value))


def ok(*prompts: MaskPrompt) -> Answer:
    return Answer(Status.OK, prompts)


class Counting(BoxSegmenter):
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.encoded = self.decoded = 0

    def encode(self, images):
        self.encoded += len(images)
        return super().encode(images)

    def decode(self, embeddings, prompts):
        self.decoded += sum(map(len, prompts))
        return super().decode(embeddings, prompts)


def test_a_box_is_its_rectangle_and_points_are_discs():
    box = MaskPrompt((2, 3, 12, 9), frame=ORIGINAL)
    points = MaskPrompt(None, ((30, 10), (5, 5)), (1, 0), ORIGINAL)
    fake = segmenters.load("box")
    [masks] = fake.decode(fake.encode([image()]), [[box, points]])
    assert masks.shape == (2, 20, 40)
    assert masks.dtype == torch.bool
    assert masks[0].sum() == 60
    assert masks[0, 3:9, 2:12].all()
    assert masks[1, 10, 30]
    assert not masks[1, 5, 5]
    assert masks[1].sum() == 13


@pytest.mark.parametrize("name", ["box", "grabcut"])
def test_decode_refuses_other_frames_and_gives_empty_stacks(name):
    segmenter = segmenters.load(name)
    embeddings = segmenter.encode([image()])
    with pytest.raises(FrameError, match="original pixels"):
        segmenter.decode(embeddings, [[MaskPrompt((0, 0, 5, 5), frame=RELATIVE_1000)]])
    assert segmenter.decode(embeddings, [[]])[0].shape == (0, 20, 40)


def test_segment_converts_frames_and_keeps_failures_apart():
    box = MaskPrompt((0, 0, 500, 500), frame=RELATIVE_1000)
    outside = MaskPrompt((90, 0, 95, 5), frame=Frame.resized(80, 40))
    answers = [ok(box, box), Answer(Status.NO_ANSWER), Answer(Status.NO_TARGET), ok(outside)]
    found = segmenters.segment(BoxSegmenter(), [image()] * 4, answers)
    assert [s.answer.status for s in found] == [Status.OK, Status.NO_ANSWER, Status.NO_TARGET, Status.BAD_VALUES]
    assert found[0].masks.shape == (2, 20, 40)
    assert found[0].union.sum() == 200
    assert found[0].answer.prompts[0].frame == ORIGINAL
    assert all(s.masks.shape == (0, 20, 40) and s.union.sum() == 0 for s in found[1:])


@pytest.mark.parametrize("ids", [None, ["a", "a", "b", "c"]])
def test_equal_images_are_encoded_once_and_equal_prompts_decoded_once(ids):
    one, two = MaskPrompt((0, 0, 5, 5), frame=ORIGINAL), MaskPrompt((1, 0, 5, 5), frame=ORIGINAL)
    counting = Counting()
    images = [image(), image(), image(value=9), image(value=200)]
    answers = [ok(one, two), ok(two, one), ok(one), Answer(Status.BAD_SYNTAX)]
    found = segmenters.segment(counting, images, answers, image_ids=ids)
    assert (counting.encoded, counting.decoded) == (2, 3)
    assert torch.equal(found[0].masks, found[1].masks.flip(0))


def test_prompts_with_their_own_prior_are_not_merged():
    prompts = [MaskPrompt((0, 0, 5, 5), frame=ORIGINAL, prior_logits=torch.zeros(1) + i) for i in range(2)]
    counting = Counting()
    segmenters.segment(counting, [image()], [ok(*prompts)])
    assert counting.decoded == 2


def test_nothing_to_segment_encodes_nothing():
    counting = Counting()
    assert segmenters.segment(counting, [], []) == []
    segmenters.segment(counting, [image()], [Answer(Status.NO_TARGET)])
    assert counting.encoded == 0


def test_content_id_tells_pixels_size_and_mode_apart():
    keys = {content_id(i) for i in (image(), image(20, 40), image(value=1), image().convert("L"))}
    assert len(keys) == 4
    assert content_id(image()) in keys


def test_masks_are_numpy_compatible():
    fake = segmenters.load("box")
    [masks] = fake.decode(fake.encode([image()]), [[MaskPrompt((0, 0, 5, 5), frame=ORIGINAL)]])
    assert masks.numpy().dtype == np.bool_


def test_masks_are_handed_on_uncopied_but_to_one_answer_only():
    image, segmenter = Image.new("RGB", (40, 30)), BoxSegmenter()
    one, two = MaskPrompt((0, 0, 9, 9), frame=ORIGINAL), MaskPrompt((5, 5, 20, 20), frame=ORIGINAL)
    asked = [Answer(Status.OK, (prompt,)) for prompt in (one, one, two)]
    first, same, other = segmenters.segment(segmenter, [image] * 3, asked)
    same.masks[:] = False
    assert first.masks.any()
    assert first.masks.untyped_storage().data_ptr() == other.masks.untyped_storage().data_ptr()
