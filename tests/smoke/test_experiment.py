"""A whole run: measured, trained with held-out answers, measured again; everything that it names is opened once."""

from __future__ import annotations

from collections import Counter

import pytest
from small import save_policy
from transformers import AutoProcessor

from segrl import datasets, segmenters
from segrl.cli.evaluation_tables import before_after_table
from segrl.evaluation import Overlap, compare_runs
from segrl.experiment import Experiment
from segrl.loading import fitting_segmenter
from segrl.policies import read_settings
from segrl.training import distributed, parse_recipe
from segrl.training.checkpoints import RunDir
from segrl.training.export import export
from segrl.training.parts import Parts
from segrl.training.reward_check import ensure_reward

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def recipe(policy, **change) -> dict:
    return {
        "method": "grpo",
        "policy": str(policy),
        "segmenter": "box",
        "dataset": {"name": "tiny", "n": 8, "seed": 3, "kinds": ["colour_shape"]},
        "rewards": {"iou": 0.7, "format": 0.3},
        "reward_check": {"samples": 2},
        "evaluation": {"dataset": {"n": 3, "seed": 9}, "every": 1, "max_new_tokens": 6},
        "trainer": {
            "max_steps": 1,
            "per_device_train_batch_size": 4,
            "num_generations": 2,
            "max_completion_length": 6,
            "gradient_checkpointing": False,
        },
        **change,
    }


def counting(counts: Counter, name: str, function):
    def counted(*args, **kwargs):
        counts[name, str(args[0]), str(sorted(kwargs.items()) if name == "data set" else "")] += 1
        return function(*args, **kwargs)

    return counted


def test_each_split_the_segmenter_and_the_processor_are_opened_once(tmp_path, monkeypatch):
    policy, opened = save_policy(tmp_path / "policy"), Counter()
    monkeypatch.setattr(datasets, "load", counting(opened, "data set", datasets.load))
    monkeypatch.setattr(segmenters, "load", counting(opened, "segmenter", segmenters.load))
    monkeypatch.setattr(AutoProcessor, "from_pretrained", counting(opened, "processor", AutoProcessor.from_pretrained))
    done = Experiment(parse_recipe(recipe(policy)), tmp_path / "run", say=lambda line: None).run()
    assert done.summary["after"]["n"] == 3
    assert done.overlap == Overlap(measured=3, trained=8, compared=8, same_image=0)
    assert Counter(kind for kind, _, _ in opened.elements()) == {"data set": 2, "segmenter": 1, "processor": 1}
    assert read_settings(done.model_dir).segmenter == fitting_segmenter(str(done.model_dir)) == "box"
    before, after = (tmp_path / "run" / "evaluation" / stage for stage in ("before", "after"))
    assert compare_runs(before, after)["n"] == 3


def test_each_process_of_a_training_opens_each_part_once(tmp_path, monkeypatch):
    """What `segrl train --processes N` starts N times, here in this process: the reward was checked before."""
    values, opened = recipe(save_policy(tmp_path / "policy")), Counter()
    directory = RunDir(tmp_path / "run")
    directory.claim(parse_recipe(values))
    ensure_reward(Parts(parse_recipe(values)), directory, say=lambda line: None)
    monkeypatch.setattr(datasets, "load", counting(opened, "data set", datasets.load))
    monkeypatch.setattr(segmenters, "load", counting(opened, "segmenter", segmenters.load))
    monkeypatch.setattr(AutoProcessor, "from_pretrained", counting(opened, "processor", AutoProcessor.from_pretrained))
    assert distributed.main([str(directory.recipe), str(directory.path)]) == 0
    assert directory.finished.exists()
    assert Counter(kind for kind, _, _ in opened.elements()) == {"data set": 2, "segmenter": 1, "processor": 1}


def test_training_and_measuring_on_one_split_open_it_once(tmp_path, monkeypatch):
    policy, opened = save_policy(tmp_path / "policy"), Counter()
    monkeypatch.setattr(datasets, "load", counting(opened, "data set", datasets.load))
    values = recipe(policy, evaluation={"dataset": {}, "max_new_tokens": 6})
    said: list[str] = []
    done = Experiment(parse_recipe(values), tmp_path / "run", say=said.append).run()
    assert list(opened.values()) == [1]
    assert done.overlap == Overlap(8, 8, 8, 8)
    assert done.summary["overlap"]["held_out"] is False
    assert any(line.startswith("WARNING: measured on training images: 8 of 8 examples (100%)") for line in said)
    page = done.report_path.read_text()
    assert "gIoU on training examples" in page
    assert "Measured on training images: 8 of 8" in page
    assert "held out" not in page.split("<dl")[0]
    assert before_after_table(done.summary, done.overlap).title.startswith("gIoU on training examples")
    card = export(tmp_path / "run", tmp_path / "export", say=said.append) / "README.md"
    assert "Warning: measured on training images: 8 of 8" in card.read_text()
