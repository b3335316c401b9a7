"""segrl.json, frames by family, chat messages, the image a policy sees, the scripted policy."""

from types import SimpleNamespace

import pytest
from PIL import Image
from scripted import ScriptedPolicy

from segrl import policies
from segrl.errors import ModelError
from segrl.policies.frames import SmartResize, frame_rule
from segrl.types import ORIGINAL, RELATIVE_1000, Frame


def test_messages_put_the_image_before_the_text():
    image = Image.new("RGB", (2, 2))
    with_system = policies.messages(image, "where?", system="be brief")
    assert with_system[0] == {"role": "system", "content": [{"type": "text", "text": "be brief"}]}
    assert [part["type"] for part in with_system[1]["content"]] == ["image", "text"]
    assert policies.messages(None, "where?")[0]["content"][0] == {"type": "image"}


def test_half_a_surrogate_pair_becomes_an_escape():
    (user,) = policies.messages(None, "the \udcff dog \U0001f415")
    assert user["content"][1]["text"] == "the \\udcff dog \U0001f415"


@pytest.mark.parametrize(
    ("rendered", "expected"),
    [
        ("<|im_start|>assistant\n<think>\n", "<think>\n"),
        ("<|im_start|>assistant\n<think>", "<think>"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", ""),
        ("write <think> first<|im_start|>assistant\n", ""),
        ("", ""),
    ],
)
def test_only_an_open_think_tag_at_the_end_counts(rendered, expected):
    assert policies.opened_think(rendered) == expected


def test_settings_round_trip(tmp_path):
    assert policies.read_settings(tmp_path) == policies.PolicySettings()
    settings = policies.PolicySettings(
        answer_format="seg-r1", frame="resized", input_wh=(112, 80), system="s", queries=("it",)
    )
    policies.write_settings(tmp_path, settings)
    assert policies.read_settings(tmp_path) == settings


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("{", "not valid JSON"),
        ("[]", "one JSON object"),
        ('{"input_size": [1, 2]}', "input_wh"),
        ('{"frame": "pixels"}', "choose one of"),
        ('{"frame": "resized"}', "needs input_wh"),
        ('{"input_wh": [112]}', "two positive integers"),
        ('{"input_wh": [112, 0]}', "two positive integers"),
        ('{"input_wh": "112"}', "two positive integers"),
        ('{"queries": []}', "list of the queries"),
        ('{"queries": "the main object"}', "list of the queries"),
    ],
)
def test_wrong_settings_name_the_file(tmp_path, text, hint):
    (tmp_path / "segrl.json").write_text(text)
    with pytest.raises(ModelError, match=hint) as raised:
        policies.read_settings(tmp_path)
    assert "segrl.json" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("family", "options", "expected"),
    [
        ("qwen2_vl", {}, RELATIVE_1000),
        ("qwen3_vl", {}, RELATIVE_1000),
        ("qwen3_5", {}, RELATIVE_1000),
        ("internvl", {}, RELATIVE_1000),
        ("qwen2_5_vl", {}, Frame.resized(644, 476)),
        ("qwen2_5_vl", {"input_wh": (768, 768)}, Frame.resized(756, 756)),
        ("qwen2_5_vl", {"input_wh": (840, 840)}, Frame.resized(840, 840)),
        ("qwen2_5_vl", {"input_wh": (768, 768), "frame": "resized"}, Frame.resized(768, 768)),
        ("qwen3_vl", {"frame": "original"}, ORIGINAL),
        ("somebody_elses", {"frame": "relative_1000"}, RELATIVE_1000),
    ],
)
def test_frames_by_family(family, options, expected):
    resize = SmartResize(factor=28, min_pixels=56 * 56, max_pixels=28 * 28 * 1280)
    assert frame_rule(family, policies.PolicySettings(**options), resize)((640, 480)) == expected


def test_an_unknown_family_asks_for_a_frame():
    with pytest.raises(ModelError, match="pass frame="):
        frame_rule("somebody_elses", policies.PolicySettings())


@pytest.mark.parametrize(
    "images",
    [
        SimpleNamespace(patch_size=14, merge_size=2, size={"shortest_edge": 3136, "longest_edge": 1003520}),
        SimpleNamespace(
            patch_size=14, merge_size=2, size=SimpleNamespace(shortest_edge=3136, longest_edge=1003520, height=None)
        ),
        SimpleNamespace(patch_size=14, merge_size=2, size={}, min_pixels=3136, max_pixels=1003520),
    ],
)
def test_limits_come_from_the_processor(images):
    assert SmartResize.of(SimpleNamespace(image_processor=images)) == SmartResize(28, 3136, 1003520)


def test_a_processor_of_another_kind_has_no_smart_resize():
    images = SimpleNamespace(size={"height": 448, "width": 448})
    assert SmartResize.of(SimpleNamespace(image_processor=images)) is None
    with pytest.raises(ModelError, match="smart_resize"):
        frame_rule("qwen2_5_vl", policies.PolicySettings(), None)


def test_prepare_image_squashes_to_the_input_size():
    image = Image.linear_gradient("L").resize((60, 20))
    plain = policies.prepare_image(image, policies.PolicySettings())
    assert (plain.size, plain.mode) == ((60, 20), "RGB")
    squashed = policies.prepare_image(image, policies.PolicySettings(input_wh=(16, 16)))
    assert (squashed.size, squashed.mode) == ((16, 16), "RGB")
    assert policies.prepare_image(squashed, policies.PolicySettings(input_wh=(16, 16))) is squashed


def test_scripted_policy_replays_by_key():
    image = Image.new("RGB", (4, 4))
    policy = ScriptedPolicy({"a": ["one", "two"], "b": ""}, default="none", frame=ORIGINAL)
    assert isinstance(policy, policies.Policy)
    texts = policy.generate([image] * 3, ["a", "b", "c"], max_new_tokens=1, num_samples=3)
    assert [[c.text for c in row] for row in texts] == [["one", "two", "one"], [""] * 3, ["none"] * 3]
    assert policy.frame_for((4, 4)) == ORIGINAL
    with pytest.raises(ModelError, match="no text for 'z'"):
        ScriptedPolicy({}).generate([image], ["z"])
