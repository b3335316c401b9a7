"""The cache with room holds what the cache of transformers holds, whatever is done to it."""

import pytest
import torch
from transformers import AutoModelForImageTextToText
from transformers.cache_utils import DynamicLayer

from segrl.policies.loading import load_model
from segrl.policies.model_speedups import ROOM, RoomyLayer, keep_room, roomy_cache
from segrl.tiny.model import WEIGHTS


def states(tokens, batch=2, *, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 3, tokens, 4, generator=generator) for _ in range(2)]


@pytest.mark.parametrize(
    ("change", "batch"),
    [
        (lambda layer: None, 2),
        (lambda layer: layer.crop(-3), 2),
        (lambda layer: layer.batch_repeat_interleave(2), 4),
        (lambda layer: layer.batch_select_indices(torch.tensor([1])), 1),
        (lambda layer: layer.batch_select_indices(torch.tensor([1, 0])), 2),
        (lambda layer: layer.reorder_cache(torch.tensor([1, 1])), 2),
        (lambda layer: layer.reset(), 2),
    ],
)
def test_equals_the_plain_layer(change, batch):
    plain, roomy = DynamicLayer(), RoomyLayer()
    for layer in (plain, roomy):
        layer.update(*states(7, seed=1))
        layer.update(*states(1, seed=2))
        change(layer)
        for step in range(ROOM + 3):
            layer.update(*states(1, batch, seed=3 + step))
    assert torch.equal(roomy.keys, plain.keys)
    assert torch.equal(roomy.values, plain.values)
    assert roomy.get_seq_length() == plain.get_seq_length()


def test_tokens_are_written_in_place_while_there_is_room():
    layer = RoomyLayer()
    layer.update(*states(7, seed=1))
    place = layer.keys.data_ptr()
    for step in range(ROOM):
        layer.update(*states(1, seed=step))
    assert layer.keys.data_ptr() == place
    layer.update(*states(1, seed=0))
    assert layer.keys.data_ptr() != place


def test_generate_uses_it_and_writes_the_same():
    plain = AutoModelForImageTextToText.from_pretrained(WEIGHTS, dtype=torch.float32).eval()
    model = load_model(str(WEIGHTS), torch.float32)
    prompt = torch.arange(20, 60).reshape(2, 20)
    options = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = plain.generate(prompt, return_dict_in_generate=True, **options)
    found = model.generate(prompt, return_dict_in_generate=True, **options)
    assert torch.equal(found.sequences, expected.sequences)
    assert {type(layer) for layer in found.past_key_values.layers} == {RoomyLayer}
    assert {type(layer) for layer in expected.past_key_values.layers} == {DynamicLayer}


def test_a_cache_of_the_caller_is_kept():
    model = load_model(str(WEIGHTS), torch.float32)
    keep_room(model)
    mine = roomy_cache(model)
    model.generate(torch.arange(20, 40)[None], past_key_values=mine, max_new_tokens=2, do_sample=False, pad_token_id=0)
    assert mine.get_seq_length() == 21
