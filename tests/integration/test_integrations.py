"""A recipe's reward where other trainers call it, each by its own interface."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from small import MASK, save_data, save_policy

from segrl.errors import DataError, ModelError, RecipeError
from segrl.integrations import RecipeReward, from_recipe
from segrl.masks import png_bytes, to_rle
from segrl.types import Status

CLIENT = Path(sys.modules[RecipeReward.__module__].__file__).with_name("client.py")
SCRIPT = Path(__file__).parents[1] / "support" / "foreign_trainer.py"
GOLD = "<think>x</think> <bbox>[28,28,84,84]</bbox>, <points>[[56,56]]</points>, <labels>[1]</labels>"
HALF = "<bbox>[28,28,56,84]</bbox>"
ANSWERS = [GOLD, HALF, "nothing"]
SUMS = [pytest.approx(1.3), pytest.approx(0.5), 0.0]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    """Seg-R1's format on COD10K's layout, boxes for masks; frame 112×112 of a 24×16 picture."""
    place = tmp_path_factory.mktemp("reward")
    values = {
        "method": "grpo",
        "policy": str(save_policy(place / "policy")),
        "segmenter": "box",
        "dataset": {"name": "cod10k", "split": "train", "root": str(save_data(place / "data", n=3))},
        "rewards": {"iou": 1.0, "format": 0.3},
    }
    (place / "recipe.yaml").write_text(yaml.safe_dump(values))
    return place / "recipe.yaml"


@pytest.fixture(scope="module")
def reward(recipe) -> RecipeReward:
    return from_recipe(recipe)


@pytest.fixture(scope="module")
def truth(reward) -> str:
    return next(reward.rows())["ground_truth"]


def test_rows_hold_what_another_trainer_needs(reward):
    rows = list(reward.rows())
    assert [row["ground_truth"] for row in rows] == [f"{i}:COD10K-CAM-1-Aquatic-1-BatFish-{i}" for i in range(3)]
    assert all(row["image"].size == (112, 112) and row["query"] in row["prompt"] for row in rows)


def test_texts_and_chats_are_scored_alike(reward, truth):
    chats = [[{"role": "assistant", "content": text}] for text in ANSWERS]
    parts = [[{"role": "assistant", "content": [{"type": "text", "text": text}]}] for text in ANSWERS]
    for completions in (ANSWERS, chats, parts):
        assert reward(completions, ground_truth=[truth] * 3) == SUMS


def test_ends_are_cut_and_ids_come_before_texts(reward, truth):
    tokenizer = reward.policy.processor.tokenizer
    assert reward.read(GOLD + tokenizer.eos_token + "more") == (GOLD, False, len(tokenizer(GOLD)["input_ids"]))
    assert reward.read("a", truncated=True)[1]
    assert not reward.read("a" + tokenizer.eos_token, truncated=True)[1]
    ids = [*tokenizer(GOLD)["input_ids"], tokenizer.eos_token_id]
    assert reward(["else"], ground_truth=[truth], completion_ids=[ids]) == SUMS[:1]


def test_a_ground_truth_may_be_a_line_of_our_own_layout(reward):
    root = Path(reward.recipe.dataset.options["root"])
    line = {"image": "people/images/FudanPed0.jpg", "query": "the box", "mask": to_rle(MASK)}
    assert reward(ANSWERS, ground_truth=[json.dumps(line)] * 3) == SUMS
    assert reward([GOLD], ground_truth=[json.dumps({**line, "mask": None})]) == [pytest.approx(0.3)]
    for outside in ("/etc/hostname", "../policy/config.json"):
        with pytest.raises(DataError, match=f"is outside {root}"):
            reward([GOLD], ground_truth=[json.dumps({**line, "image": outside})])


@pytest.mark.parametrize("path", ["../secret.png", "{outside}", "people/../../secret.png"])
def test_masks_stay_under_the_root_however_they_are_written(reward, path, tmp_path):
    root = Path(reward.recipe.dataset.options["root"])
    for secret in (root.parent / "secret.png", tmp_path / "secret.png"):
        secret.write_bytes(png_bytes(MASK))
    as_file = {"bytes": None, "path": path.format(outside=tmp_path / "secret.png")}
    line = {"image": "people/images/FudanPed0.jpg", "query": "the box", "mask": to_rle(MASK)}
    for mask in (as_file["path"], as_file, json.dumps(as_file), f" {json.dumps(as_file)}"):
        for named in ({"mask": mask}, {"ignore": mask}):
            with pytest.raises(DataError, match=f"secret.png is outside {root}"):
                reward([GOLD], ground_truth=[json.dumps(line | named)])


NUL = json.dumps({"image": "a\0b.jpg", "query": "it", "masks": []})


@pytest.mark.parametrize("wrong", ["", "x:y", "9:COD10K", "0:another", "{", "{}", NUL])
def test_wrong_ground_truths_are_named(reward, wrong):
    with pytest.raises(DataError) as caught:
        reward([GOLD], ground_truth=[wrong])
    assert "\n" not in str(caught.value)


def test_which_stage(tmp_path):
    stages = "stages: {a: {method: sft, policy: p}, b: {method: grpo, policy: p, rewards: {iou: 1}}"
    (tmp_path / "r.yaml").write_text(f"{{dataset: tiny, segmenter: box, answer_format: seg-r1, {stages}}}}}")
    with pytest.raises(ModelError, match="there is no model directory p"):  # stage b, the only one with a reward
        from_recipe(tmp_path / "r.yaml")
    with pytest.raises(RecipeError, match="no stage 'a' with a reward; it has b"):
        from_recipe(tmp_path / "r.yaml", stage="a")
    (tmp_path / "sft.yaml").write_text("{method: sft, policy: p, dataset: tiny}")
    with pytest.raises(RecipeError, match="not one stage with a reward; it has none"):
        from_recipe(tmp_path / "sft.yaml")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_trl_takes_it_as_it_is(recipe, tmp_path):
    from trl import GRPOConfig, GRPOTrainer

    reward = from_recipe(recipe)
    options = {"per_device_train_batch_size": 2, "num_generations": 2, "max_completion_length": 4, "max_steps": 1}
    config = GRPOConfig(str(tmp_path), use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, **options)
    trainer = GRPOTrainer(
        model=reward.policy.path,
        reward_funcs=reward,
        args=config,
        train_dataset=reward.dataset(),
        processing_class=reward.policy.processor,
    )
    trainer.train()
    logged = trainer.state.log_history[0]
    assert {"rewards/segrl/mean", "segrl/iou", "segrl/format", "giou"} <= logged.keys()


@pytest.fixture(scope="module")
def served(recipe):
    """The server on a port of its own, with two engines."""
    pytest.importorskip("uvicorn")
    pytest.importorskip("fastapi")
    from serving import listening

    from segrl.web.reward_server import make_app

    app = make_app([from_recipe(recipe), from_recipe(recipe)], name="test")
    with listening(app) as (port, _):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def client(served, monkeypatch) -> ModuleType:
    """The client's file, loaded as verl and EasyR1 load one: by its path."""
    monkeypatch.setenv("SEGRL_REWARD", served)
    spec = importlib.util.spec_from_file_location("custom_reward_fn", CLIENT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_verl_gets_a_score_and_more(client, truth):
    scored = [client.verl_score("cod10k", text, truth, extra_info={"num_turns": 1}) for text in ANSWERS]
    assert [one["score"] for one in scored] == SUMS
    assert [one["parsed"] for one in scored] == [1.0, 1.0, 0.0]


def test_easyr1_gets_a_batch(client, truth):
    rows = [{"response": text, "response_length": 5, "ground_truth": truth} for text in ANSWERS]
    assert [one["overall"] for one in client.easyr1_score(rows)] == SUMS


def test_many_callers_over_the_engines_get_their_own(client, reward):
    truths = [row["ground_truth"] for row in reward.rows()]
    with ThreadPoolExecutor(12) as pool:
        scores = list(pool.map(lambda i: client.verl_score("", ANSWERS[i % 3], truths[i % 2]), range(12)))
    assert [one["score"] for one in scores] == SUMS * 4
    assert 0 < health(client)["batches"] <= 24


def test_a_wrong_row_is_refused_in_one_line(client):
    with pytest.raises(ValueError, match=r"/score answered 422: .*PLACE:ID") as caught:
        client.score([{"text": GOLD, "ground_truth": "no"}])
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_told_in_one_line(client, monkeypatch, capsys):
    request = client.urllib.request.Request("http://127.0.0.1:9/score", b"{}")
    with pytest.raises(ConnectionError, match="is segrl serve-reward there"):
        client._answer(request, patience=1.5)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "asking again for 2 s" in said


def test_ms_swift_gets_a_list(client, truth):
    columns = {"messages": [[]] * 3, "trainer_state": None, "is_truncated": [False, False, True]}
    assert client.swift_score(ANSWERS, ground_truth=[truth] * 3, **columns) == SUMS


BESIDE = (
    "tensordict==0.10.0", "omegaconf", "antlr4-python3-runtime", "codetiming", "pyvers", "ray", "jsonschema",
    "referencing", "rpds-py", "jsonschema-specifications", "attrs", "msgpack",
)  # fmt: skip
FOREIGN = {
    "verl": ("verl==0.9.1", *BESIDE),
    "swift": (
        "ms-swift==4.6.0", "json_repair", "modelscope", "modelscope_hub", "dacite", "addict", "cryptography", "cffi",
        "pycparser",
    ),
    "easyr1": BESIDE,
}  # fmt: skip
"""What each trainer's loader imports beside torch and transformers, which are ours: their own pins exclude them."""


@pytest.mark.long
@pytest.mark.parametrize("trainer", FOREIGN)
def test_the_trainers_own_code_loads_the_client(served, recipe, truth, trainer, tmp_path):
    """In a folder with that file alone; EasyR1 is on no registry: SEGRL_EASYR1 names a clone of it."""
    import extra

    source = os.environ.get("SEGRL_EASYR1", "")
    if trainer == "easyr1" and not source:
        pytest.skip("SEGRL_EASYR1 names no clone of EasyR1")
    shutil.copy(CLIENT, tmp_path / "client.py")
    places = [str(extra.folder(trainer, *FOREIGN[trainer])), *([source] if trainer == "easyr1" else [])]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), trainer, "client.py", str(recipe.parent / "policy")],
        cwd=tmp_path, input=json.dumps([ANSWERS, truth]), capture_output=True, text=True, timeout=1800,
        env={**os.environ, "SEGRL_REWARD": served, "PYTHONPATH": os.pathsep.join(places)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == SUMS


def health(client: ModuleType) -> dict[str, Any]:
    address = client.os.environ["SEGRL_REWARD"] + "/health"
    with client.urllib.request.urlopen(address, timeout=60) as answer:
        return json.load(answer)


class LengthReward:
    """Rewards a text with its length; a ground truth `bad` is a fault."""

    def __init__(self) -> None:
        self.scored: list[list[str]] = []

    def score(self, texts, truths, truncated):
        self.scored.append(list(texts))
        if "bad" in truths:
            raise DataError("bad")
        rollouts = [SimpleNamespace(score=SimpleNamespace(status=Status.OK, iou=0.5)) for _ in texts]
        return SimpleNamespace(rollouts=rollouts, totals=[float(len(text)) for text in texts], values={})


def test_callers_share_batches_and_one_callers_fault_is_not_the_others():
    pytest.importorskip("fastapi")
    from segrl.web.reward_server import Row, Scorers

    reward = LengthReward()
    scorers = Scorers([reward])

    def ask(*texts, truth="good"):
        return scorers.score([Row(text=text, ground_truth=truth) for text in texts])

    async def all_at_once():
        callers = [ask("a", "bb"), ask("ccc", truth="bad"), ask(), *(ask("d" * n) for n in range(20))]
        return await asyncio.gather(*callers, return_exceptions=True)

    first, bad, none, *others = asyncio.run(all_at_once())
    assert [one.reward for one in first] == [1, 2]
    assert isinstance(bad, DataError)
    assert none == []
    assert [one.reward for (one,) in others] == list(range(20))
    assert len(reward.scored[0]) == 23  # all of them together, then each caller on its own
    assert scorers.batches > 1
