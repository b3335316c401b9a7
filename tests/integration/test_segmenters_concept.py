"""The concept segmenter: words in, instances out, each image encoded once."""

from __future__ import annotations

import pytest
import torch
import transformers
from PIL import Image
from random_weights import save_random

from segrl import segmenters
from segrl.errors import ModelError
from segrl.types import Status


@pytest.fixture(scope="module", params=["sam3", "sam3_video"])
def path(request, tmp_path_factory):
    return str(save_random(request.param, tmp_path_factory.mktemp(request.param)))


def image(value: int) -> Image.Image:
    return Image.linear_gradient("L").resize((50, 30)).convert("RGB").point(lambda v: (v + value) % 256)


def plain(path: str, picture: Image.Image, words: str, threshold: float):
    """The instances of the plain path, surest first."""
    model = transformers.Sam3Model.from_pretrained(path).eval()
    processor = transformers.Sam3Processor.from_pretrained(path)
    inputs = processor(images=picture, text=words, return_tensors="pt")
    with torch.no_grad():
        output = model(**{name: value for name, value in inputs.items() if name != "original_sizes"})
    sizes = inputs["original_sizes"].tolist()
    [found] = processor.post_process_instance_segmentation(output, threshold, target_sizes=sizes)
    return found["masks"].bool()[found["scores"].argsort(descending=True)]


def test_words_find_what_the_plain_path_finds(path):
    concept = segmenters.load_concept(path, device="cpu", score_threshold=0.0)
    asked = ["cat", "dog", "cat", "cat"]
    found = concept.segment([image(0), image(0), image(90), image(0)], asked)
    assert (concept.encoder_calls, concept.decoder_calls) == (2, 3)
    expected = plain(path, image(0), "cat", 0.0)
    expected = expected[expected.any(dim=(1, 2))]
    assert len(expected) > 0
    assert torch.equal(found[0].masks, expected)
    assert torch.equal(found[3].masks, expected)
    assert all(len(s.answer.prompts) == len(s.masks) for s in found)


def test_nothing_found_is_said(path):
    [found] = segmenters.load_concept(path, device="cpu", score_threshold=1.0).segment([image(0)], ["cat"])
    assert found.answer.status is Status.NO_TARGET
    assert found.masks.shape == (0, 30, 50)


def test_a_model_without_words_is_one_line(tmp_path):
    with pytest.raises(ModelError, match="is a sam2, no concept segmenter"):
        segmenters.load_concept(str(save_random("sam2", tmp_path)))
