"""A policy behind a server: what is sent, what is read, and what happens when the server misbehaves."""

from __future__ import annotations

import base64
import doctest
import io
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eval_samples import write_examples
from fake_server import MODEL, Reply, serving, text
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segrl import loading, policies, segmenters
from segrl.answers import Move
from segrl.errors import ModelError, ServerError
from segrl.evaluation import Share, run
from segrl.folder_job.worker import Plan, Task, answered
from segrl.jobs import WorkerInfo
from segrl.loading import make_text_to_masks
from segrl.pipeline import Pipeline
from segrl.policies import frames, http_client, openai_policy, settings
from segrl.policies.frames import FAMILY_RESIZE, family_of
from segrl.policies.http_client import Server
from segrl.policies.openai_policy import OpenAIPolicy, read_reply
from segrl.segmenters import load as load_segmenter
from segrl.turns import INSTRUCTION
from segrl.types import RELATIVE_1000, Frame, Status

WIDE = Image.new("RGB", (300, 200), (200, 30, 40))
OK = '[{"bbox_2d": [10, 20, 110, 120]}]'
QUICK = "?retries=2&timeout_s=20"


@pytest.fixture(autouse=True)
def _quick_and_without_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "_delay_s", lambda attempt, backoff_s: 0.0)
    monkeypatch.delenv(http_client.KEY_VARIABLE, raising=False)


def load(fake: Any, model: str = MODEL, query: str = QUICK, **options: Any) -> OpenAIPolicy:
    policy = policies.load(f"openai:{model}@{fake.url}{query}", **options)
    assert isinstance(policy, OpenAIPolicy)
    return policy


def ask(policy: OpenAIPolicy, n: int = 1, **options: Any) -> list[list[policies.Completion]]:
    return policy.generate([WIDE] * n, [f"prompt {i}" for i in range(n)], max_new_tokens=64, **options)


def sent_image(body: dict[str, Any]) -> Image.Image:
    url = body["messages"][-1]["content"][0]["image_url"]["url"]
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_what_is_sent_and_what_comes_back() -> None:
    with serving(text(f"<think>red</think>{OK}", tokens=12)) as fake:
        policy = load(fake, system="be brief")
        assert isinstance(policy, policies.Policy)
        ((completion,),) = ask(policy)
    (body,) = fake.asked
    assert completion.text == f"<think>red</think>{OK}"
    assert (completion.truncated, completion.n_tokens) == (False, 12)
    assert completion.seconds > 0
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    assert body["messages"][0]["content"] == "be brief"
    assert [part["type"] for part in body["messages"][1]["content"]] == ["image_url", "text"]
    assert body["messages"][1]["content"][1]["text"] == "prompt 0"
    assert (body["model"], body["max_tokens"], body["temperature"], body["top_p"]) == (MODEL, 64, 0.0, 1.0)
    assert (body["repetition_penalty"], body["top_k"], "seed" in body) == (1.0, -1, False)


def test_half_a_surrogate_pair_is_sent_as_an_escape() -> None:
    with serving(text("x")) as fake:
        load(fake).generate([Image.new("RGB", (4, 4))], ["the \udcff dog"], max_new_tokens=8)
    assert fake.asked[0]["messages"][-1]["content"][1]["text"] == "the \\udcff dog"


def test_a_vendor_gets_no_fields_that_it_does_not_know() -> None:
    with serving(text("x"), owned_by="a vendor") as fake:
        ask(load(fake, query=QUICK + "&token_limit_field=max_completion_tokens"))
    assert fake.asked[0].keys() == {"model", "messages", "temperature", "top_p", "max_completion_tokens", "stream"}


@pytest.mark.parametrize(
    ("model", "options", "shown_wh", "frame"),
    [
        (MODEL, {}, (308, 196), Frame.resized(308, 196)),
        (MODEL, {"max_pixels": 28 * 28 * 20}, (140, 84), Frame.resized(140, 84)),
        (MODEL, {"input_wh": [840, 840]}, (840, 840), Frame.resized(840, 840)),
        ("Qwen/Qwen2-VL-2B-Instruct", {}, (300, 200), RELATIVE_1000),
        ("Qwen/Qwen3-VL-8B-Instruct", {}, (300, 200), RELATIVE_1000),
        ("Qwen/Qwen3.5-9B", {}, (300, 200), RELATIVE_1000),
        ("OpenGVLab/InternVL3-8B-hf", {}, (300, 200), RELATIVE_1000),
        ("geshang/Seg-R1-7B", {}, (768, 768), Frame.resized(768, 768)),
        ("mine", {"family": "qwen2_5_vl"}, (308, 196), Frame.resized(308, 196)),
        ("mine", {"frame": "resized", "input_wh": (64, 32)}, (64, 32), Frame.resized(64, 32)),
    ],
)
def test_each_family_sees_its_size_and_writes_its_frame(
    model: str, options: dict[str, Any], shown_wh: tuple[int, int], frame: Frame
) -> None:
    with serving(text(OK), models=(model,)) as fake:
        policy = load(fake, model, **options)
        ask(policy)
    assert sent_image(fake.asked[0]).size == shown_wh
    assert policy.frame_for(WIDE.size) == frame


@given(st.integers(8, 3000), st.integers(8, 3000))
def test_a_picture_in_the_familys_size_keeps_it_at_the_server(width: int, height: int) -> None:
    for resize in FAMILY_RESIZE.values():
        if max(width, height) <= 200 * min(width, height):
            size_wh = resize.size_wh((width, height))
            assert resize.size_wh(size_wh) == size_wh


def test_the_numbers_become_original_pixels_and_masks() -> None:
    with serving(text('[{"bbox_2d": [77, 49, 231, 147]}]')) as fake:
        policy = load(fake)
        pipeline = Pipeline(policy, make_text_to_masks(policy, load_segmenter("box")))
        result = pipeline.segment(WIDE, "the cup")
    assert result.status is Status.OK
    assert result.prompts[0].box_xyxy == pytest.approx((75, 50, 225, 150))
    assert result.mask.sum() == 150 * 100
    assert "the cup" in fake.asked[0]["messages"][0]["content"][1]["text"]


def test_a_single_turn_checkpoint_behind_a_server_is_asked_to_correct_itself_by_prompt_alone() -> None:
    """Seg-Zero's format, 840 pixels: box and points, then what cannot be read, then that it is done."""
    found = '<answer>{"bbox": [84, 84, 420, 420], "points_1": [200, 200], "points_2": [300, 300]}</answer>'
    said = [found, "<answer>[[]]</answer>", "Done."]

    def turn(number: int, body: dict[str, Any]) -> Reply:
        answered = sum(message["role"] == "assistant" for message in body["messages"])
        return text(f"<think>so</think>{said[answered]}", tokens=5)

    with serving(turn, models=("Ricky06662/Seg-Zero-7B",)) as fake:
        policy = load(fake, "Ricky06662/Seg-Zero-7B")
        model = Pipeline(policy, make_text_to_masks(policy, load_segmenter("box")))
        result = model.segment(WIDE, "the cup", turns=3)
    assert [one.move for one in result.turns] == [Move.ANSWER, Move.BROKEN, Move.DONE]
    assert (result.status, result.n_tokens, result.mask.sum()) == (Status.OK, 15, 120 * 80)
    first, second, third = fake.asked
    assert [len(body["messages"]) for body in (first, second, third)] == [1, 3, 5]
    assert second["messages"][1]["content"] == f"<think>so</think>{said[0]}"
    shown, words = second["messages"][2]["content"]
    assert words["text"].startswith("area 16%")
    assert words["text"].endswith(INSTRUCTION)
    assert third["messages"][4]["content"][1]["text"].startswith("not read: ")
    picture = Image.open(io.BytesIO(base64.b64decode(shown["image_url"]["url"].partition(",")[2])))
    assert picture.size == sent_image(first).size == (840, 840)
    assert (np.asarray(picture) != np.asarray(sent_image(first))).any()


def test_published_checkpoints_are_asked_in_their_own_format() -> None:
    with serving(text(""), models=("Ricky06662/Seg-Zero-7B",)) as fake:
        assert load(fake, "Ricky06662/Seg-Zero-7B").answer_format == "seg-zero"
        assert load(fake, "Ricky06662/Seg-Zero-7B", answer_format="json-list").answer_format == "json-list"


@pytest.mark.parametrize(
    ("reply", "text_read", "truncated"),
    [
        (text("a", "length"), "a", True),
        (text("a", "stop"), "a", False),
        (text(None, "content_filter"), "", False),
        (text("b", reasoning_content="a"), "<think>a</think>b", False),
        (text("b", reasoning="a"), "<think>a</think>b", False),
        (text("<think>a</think>b", reasoning_content="a"), "<think>a</think>b", False),
        (text("a</think>b"), "<think>a</think>b", False),
        (text("x<think>a</think>b"), "x<think>a</think>b", False),
        (text("<think>a"), "<think>a", False),
    ],
)
def test_replies(reply: Reply, text_read: str, truncated: bool) -> None:
    completion = read_reply(reply.body)
    assert (completion.text, completion.truncated) == (text_read, truncated)


@pytest.mark.parametrize("n_samples", [1, 3])
def test_order_and_bounded_concurrency(n_samples: int) -> None:
    gate = threading.Barrier(3, timeout=20)

    def slow_then_echo(number: int, body: dict[str, Any]) -> Reply:
        if number < 3:
            gate.wait()  # passes only where three requests are under way at once
        return text(body["messages"][0]["content"][1]["text"])

    with serving(slow_then_echo) as fake:
        policy = load(fake, query="?concurrency=3&timeout_s=30")
        rows = ask(policy, 7, num_samples=n_samples)
    assert [[one.text for one in row] for row in rows] == [[f"prompt {i}"] * n_samples for i in range(7)]
    assert fake.most_at_once == 3
    assert len(fake.asked) == 7  # greedy: the samples of a request are one


def test_samples_are_seeded_by_the_request() -> None:
    with serving(lambda number, body: text(str(body["seed"]))) as fake:
        policy = load(fake)
        options = {"temperature": 1.0, "num_samples": 3}
        first, again = ask(policy, 2, **options), ask(policy, 2, **options)
        twice = policy.generate([WIDE] * 2, ["prompt 0"] * 2, max_new_tokens=64, **options)
        other = ask(policy, 2, seed=1, **options)
    seeds = [[one.text for one in row] for row in first]
    assert seeds == [[one.text for one in row] for row in again]
    assert len({seed for row in [*seeds, *([one.text for one in row] for row in other)] for seed in row}) == 12
    assert [one.text for one in twice[0]] == seeds[0]
    assert [one.text for one in twice[1]] != seeds[0]
    assert all(0 <= int(seed) < 2**31 for row in seeds for seed in row)


GARBAGE = [
    Reply(b"{not json"),
    Reply(b""),
    Reply([]),
    Reply({"choices": []}),
    Reply({"choices": [{"message": {"content": "x"}}]}),
    Reply({"choices": [{"message": {"content": [1]}, "finish_reason": "stop"}]}),
    Reply({"error": {"message": "overloaded"}}, 500),
    Reply({"detail": "busy"}, 503),
    Reply({}, 429, {"Retry-After": "0"}),
    Reply(drop=True),
]


@pytest.mark.parametrize("fault", GARBAGE, ids=repr)
def test_what_may_pass_is_asked_again(fault: Reply) -> None:
    with serving(lambda number, _: fault if number < 2 else text("at last")) as fake:
        assert ask(load(fake))[0][0].text == "at last"
    assert len(fake.asked) == 3


@pytest.mark.parametrize(
    ("fault", "hint", "asked"),
    [
        (Reply({"error": {"message": "over\nloaded"}}, 500), "answered 500: over loaded (asked 3 times)", 3),
        (Reply(b"<html>bad gateway</html>", 502), "answered 502: <html>bad gateway</html>", 3),
        (Reply(b"{", 200), "cannot be read", 3),
        (Reply(drop=True), "cannot be reached", 3),
        (Reply({"error": {"message": "maximum context length"}}, 400), "answered 400: maximum context length", 1),
        (Reply({"object": "error", "message": "no image"}, 422), "answered 422: no image", 1),
        (Reply({"error": "no such key"}, 401), "SEGRL_API_KEY", 1),
        (Reply({"error": {"message": None}}, 404), "answered 404: Not Found", 1),
        (Reply([1], 404), "answered 404: [1]", 1),
    ],
)
def test_what_does_not_pass_is_one_line(fault: Reply, hint: str, asked: int) -> None:
    with serving(fault) as fake:
        policy = load(fake)
        with pytest.raises(ServerError) as raised:
            ask(policy)
    assert hint in str(raised.value)
    assert fake.url in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.status == (fault.status if fault.status != 200 and not fault.drop else None)
    assert len(fake.asked) == asked


def test_a_server_that_is_too_slow() -> None:
    with serving(Reply(text("late").body, delay_s=0.6)) as fake:
        with pytest.raises(ServerError, match=r"did not answer in time \(asked once\)"):
            ask(load(fake, query="?timeout_s=0.2&retries=0"))
        assert ask(load(fake))[0][0].text == "late"


def test_the_first_failure_ends_the_call() -> None:
    with serving(Reply({"error": "no"}, 400)) as fake, pytest.raises(ServerError):
        ask(load(fake, query="?concurrency=2"), 40)
    assert len(fake.asked) < 40


def test_waits_as_long_as_the_server_asks() -> None:
    waits: list[float] = []
    answers = [Reply({}, 429, {"Retry-After": "7"}), Reply({}, 503, {"Retry-After": "100000"}), Reply({}, 500)]
    with serving(lambda number, _: answers[number] if number < 3 else Reply({"value": 1})) as fake:
        one = Server(fake.url, sleep=waits.append)
        assert one.post("chat/completions", {}, lambda reply: reply["value"]) == 1
        one.close()
    assert waits == [7.0, http_client.MAX_WAIT_S, 0.0]


@pytest.mark.parametrize("attempt", range(9))
def test_delays_grow_and_are_bounded(attempt: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    longest = min(2**attempt, http_client.MAX_WAIT_S)
    assert longest / 2 <= http_client._delay_s(attempt, 1.0) <= longest


def test_the_key_is_sent_and_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret-123")
    with serving(Reply({"error": {"message": "Incorrect API key provided: sk-secret-123"}}, 401)) as fake:
        policy = load(fake, query="?api_key_env=MY_KEY")
        with pytest.raises(ServerError) as raised:
            ask(policy)
    assert fake.keys == ["Bearer sk-secret-123"]
    assert "sk-secret" not in str(raised.value)
    assert "***" in str(raised.value)
    assert "sk-secret" not in repr(vars(policy))


def test_no_key_is_sent_without_being_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    with serving(text("x")) as fake:
        ask(load(fake))
        monkeypatch.setenv(http_client.KEY_VARIABLE, "sk-mine")
        ask(load(fake))
    assert fake.keys == [None, "Bearer sk-mine"]


def one_line(name: str, **options: Any) -> str:
    with pytest.raises(ModelError) as raised:
        policies.load(name, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_names_that_cannot_be_used() -> None:
    at = f"openai:{MODEL}@http://localhost:1/v1"
    assert "write openai:MODEL@http" in one_line("openai:gpt")
    assert "did you mean 'concurrency'" in one_line(f"{at}?concurency=4")
    assert "concurrency cannot be 'many'" in one_line(f"{at}?concurrency=many")
    assert "concurrency is at least 1" in one_line(f"{at}?concurrency=0")
    assert "did you mean 'frame'" in one_line(at, frames="original")
    assert "MY_KEY" in one_line(f"{at}?api_key_env=MY_KEY")
    assert "password" in one_line(f"openai:{MODEL}@http://me:pw@localhost:1/v1")
    assert "not the URL" in one_line(f"openai:{MODEL}@http://localhost:x/v1")
    assert "device is chosen where the server is started" in one_line(at, device="cuda")
    assert "cannot be reached" in one_line(f"{at}?retries=0", device=None)


def test_models_that_are_not_served_or_not_known() -> None:
    with serving(text("x"), models=("mine", MODEL)) as fake:
        assert f"does not serve 'yours'; it serves {MODEL}, mine" in one_line(f"openai:yours@{fake.url}")
        assert "pass frame=" in one_line(f"openai:mine@{fake.url}")
        assert "unknown family 'qwen'" in one_line(f"openai:mine@{fake.url}?family=qwen")
        assert load(fake, "mine", "?frame=original").frame_for((5, 5)) == Frame(frames.ORIGINAL.kind)
    with serving(text("x"), models_status=404) as fake:
        assert ask(load(fake))[0][0].text == "x"


THINKING = "Qwen/Qwen3-VL-8B-Thinking"


def test_a_published_model_behind_a_server_may_write_as_long_as_here(tmp_path: Path) -> None:
    examples = write_examples(tmp_path, 2)
    with serving(text("[]"), models=(THINKING,)) as fake:
        name = f"openai:{THINKING}@{fake.url}{QUICK}"
        loading.load(name, segmenter="box").segment(WIDE, "the cup")
        run(replace(examples, policy=name, texts=None), tmp_path / "run", share=Share())
    assert [body["max_tokens"] for body in fake.asked] == [4096] * 3
    assert json.loads((tmp_path / "run" / "run.json").read_text())["decoding"]["max_new_tokens"] == 4096


def test_a_device_is_the_segmenters_where_a_server_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[tuple[str, Any]] = []

    def load_sam(name: str, device: str | None = None) -> Any:
        placed.append((name, device))
        return load_segmenter("box")

    monkeypatch.setattr(segmenters.loading, "load_sam", load_sam)
    WIDE.save(tmp_path / "a.png")
    task = Task(tmp_path / "a.png", "a.png", "a", ("the cup",))
    with serving(text(OK)) as fake:
        for segmenter in ("a/sam", "grabcut"):
            model = {"policy": f"openai:{MODEL}@{fake.url}{QUICK}", "segmenter": segmenter, "device": "cuda:7"}
            (record,) = answered([task], WorkerInfo(), Plan(tmp_path, (), model))
            assert record.answers[0].status is Status.OK
    assert placed == [("a/sam", "cuda:7")]


def test_nothing_asked_for_is_nothing_sent() -> None:
    with serving(text("x")) as fake:
        assert load(fake).generate([], [], max_new_tokens=5) == []
    assert fake.asked == []


def test_the_docstrings_examples() -> None:
    for module in (http_client, openai_policy, frames, settings):
        assert doctest.testmod(module).failed == 0
    assert family_of("my-Qwen2_5-VL-lora") == "qwen2_5_vl"
