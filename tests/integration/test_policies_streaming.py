"""Text while it is written: the same text as otherwise, whole characters, and an early end."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segrl import policies
from segrl.policies.transformers_policy import text_pieces
from segrl.tiny import model as tiny_model


class Bytes:
    """A tokenizer whose tokens are bytes; 0 ends a text."""

    eos_token_id, pad_token_id = 0, None

    def decode(self, ids, **_):
        return bytes(ids).decode("utf-8", "replace")


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30),
    st.sampled_from(["", "<think>"]),
)
def test_pieces_are_whole_characters_and_join_to_the_text(text, opening):
    pieces = list(text_pieces([*text.encode(), 0], Bytes(), opening))
    assert "".join(pieces) == opening + text
    assert all(pieces)
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


def test_broken_bytes_are_told_at_the_end():
    assert "".join(text_pieces([65, 0xC3], Bytes())) == "A\ufffd"


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    directory = tmp_path_factory.mktemp("policy")
    tiny_model.save(directory, tiny_model.Shape(width=48, layers=1, mlp=48, vision_width=48, vision_layers=2))
    return policies.load(str(directory), device="cpu")


def test_a_stream_is_the_greedy_completion(policy):
    image, prompt = Image.new("RGB", (112, 112), (200, 30, 30)), "Identify and segment the red ring"
    pieces, stream = [], policies.stream(policy, image, prompt, max_new_tokens=12)
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            completion = end.value
            break
    ((plain,),) = policy.generate([image], [prompt], max_new_tokens=12)
    assert (completion.text, completion.truncated, completion.n_tokens) == (plain.text, plain.truncated, plain.n_tokens)
    assert "".join(pieces) == plain.text
    assert len(pieces) > 1


def test_closing_a_stream_ends_the_work(policy):
    before = threading.active_count()
    stream = policies.stream(policy, Image.new("RGB", (112, 112)), "Identify and segment it", max_new_tokens=100_000)
    next(stream)
    stream.close()
    assert threading.active_count() == before
    assert policy.generate([Image.new("RGB", (112, 112))], ["x"], max_new_tokens=1)


def test_a_fault_while_streaming_is_raised(policy, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no device")

    monkeypatch.setattr(policy.model, "generate", fail)
    with pytest.raises(RuntimeError, match="no device"):
        list(policies.stream(policy, Image.new("RGB", (112, 112)), "x", max_new_tokens=4))
