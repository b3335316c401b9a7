"""The tiny policies: how their tokenizer spells answers, and where they lie."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segrl import answers
from segrl.policies import read_settings
from segrl.tiny import resolve_policy
from segrl.tiny.model import SPECIAL, build_tokenizer
from segrl.tiny.scenes import TinyScenes
from segrl.tiny.shapes import KINDS, SIDE
from segrl.types import Status

ALL = tuple(KINDS)
TOKENIZER = build_tokenizer()


def test_gold_answers_are_read_back_and_short_in_tokens():
    spelled, seg_r1 = TOKENIZER, answers.get("seg-r1")
    for example in TinyScenes(28, 14, tuple(k for k in ALL if k != "count")):
        text = seg_r1.render(example.meta["prompts"], example.meta["reasoning"])
        ids = spelled(text)["input_ids"]
        assert spelled.decode(ids) == text
        assert len(ids) <= 100
        assert seg_r1.parse(text).status in (Status.OK, Status.NO_TARGET)
        prompt = spelled.convert_ids_to_tokens(spelled(seg_r1.prompt(example.query))["input_ids"])
        assert not any(token.startswith("<0x") for token in prompt), prompt


@given(st.text(max_size=40))
def test_any_text_comes_back_from_the_tokenizer(text: str):
    if any(special in text for special in SPECIAL):
        return
    assert TOKENIZER.decode(TOKENIZER(text)["input_ids"]) == text


def test_names_of_tiny_policies(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert resolve_policy("owner/model") == "owner/model"
    assert resolve_policy("tiny").endswith("weights")
    fresh = resolve_policy("tiny-fresh")
    assert fresh == resolve_policy("tiny-fresh")
    assert read_settings(fresh).input_wh == (SIDE, SIDE)
