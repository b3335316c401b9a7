"""The road from text to masks, with a stand-in for the answer format."""

from __future__ import annotations

from PIL import Image

from segrl.segmenters import load
from segrl.text_to_masks import TextToMasks
from segrl.types import RELATIVE_1000, Answer, Frame, MaskPrompt, Status


class FullBox:
    """Reads any text as a box over the whole 0–1000 frame; a truncated one as truncated."""

    name, needs = "full box", frozenset()

    def parse(self, text: str, *, truncated: bool, frame: Frame, reading: str) -> Answer:
        assert reading == "strict"
        if truncated:
            return Answer(Status.TRUNCATED)
        width, height = (1000, 1000) if frame == RELATIVE_1000 else frame.size_wh
        return Answer(Status.OK, (MaskPrompt((0, 0, width, height), frame=frame),))


def test_a_road_reads_each_text_in_the_frame_of_its_own_image():
    images = [Image.new("RGB", (8, 6)), Image.new("RGB", (5, 7)), Image.new("RGB", (8, 6))]
    frames = {(8, 6): RELATIVE_1000, (5, 7): Frame.resized(28, 56)}
    text_to_masks = TextToMasks(FullBox(), frames.__getitem__, load("box"))
    found = text_to_masks.read(["a", "b", "c"], images, truncated=[False, False, True])
    assert [tuple(s.masks.shape) for s in found] == [(1, 6, 8), (1, 7, 5), (0, 6, 8)]
    assert found[0].union.all()
    assert found[1].union.all()
    assert found[2].answer.status is Status.TRUNCATED
