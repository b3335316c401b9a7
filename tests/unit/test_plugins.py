"""Code of one's own: found beside the recipe, given its options, and named when it fails."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from segrl import answers, datasets
from segrl.errors import DataError, RecipeError, SegrlError
from segrl.rewards import Completions, RewardEngine
from segrl.segmenters import load as load_segmenter
from segrl.text_to_masks import TextToMasks
from segrl.training.recipe import load_recipe
from segrl.types import ORIGINAL

TERMS = '''
import numpy as np

def red(rollout, power=1, *, scale=1.0):
    """How red the picture is under the mask."""
    pixels = np.asarray(rollout.image)[rollout.mask]
    return scale * float(pixels[:, 0].mean() / 255) ** power if len(pixels) else None

def fails(rollout):
    return 1 / 0

def nan(rollout):
    return float("nan")

def text(rollout):
    return "good"

def tensor(rollout):
    return rollout.segmentation.masks

def yes(rollout):
    return rollout.mask.any()
'''
DATA = """
import numpy as np
from PIL import Image
from segrl.types import Example

def cells(n=2, broken=False):
    mask = np.zeros((1, 8, 8), bool)
    mask[0, 2:4, 2:4] = True
    made = [Example(f"c{i}", f"c{i}", Image.new("RGB", (8, 8)), "the cell", mask) for i in range(n)]
    return [*made, None] if broken else made

def generator(n=2):
    yield from cells(n)

class Fails(list):
    def __len__(self):
        return 3
    def __getitem__(self, index):
        raise KeyError("slide 7")
"""
FORMATS = """
from segrl.answers.seg_r1 import SegR1

class Fails(SegR1):
    def read(self, body, frame):
        return {}["bbox"]

class Number(SegR1):
    def prompt(self, query):
        return 7
"""
RECIPE = (
    "method: grpo\npolicy: tiny\nsegmenter: box\ndataset: tiny\nrewards: {{own: {{weight: 1, python: {path}{rest}}}}}\n"
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with own code, which nothing imported before; the path is as it was afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name, source in (("own_terms", TERMS), ("own_data", DATA), ("own_formats", FORMATS)):
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
    answers.base.own_format.cache_clear()
    return tmp_path


def term(place, path: str, rest: str = ""):
    recipe = place / "r.yaml"
    recipe.write_text(RECIPE.format(path=path, rest=rest))
    return load_recipe(recipe).terms()


def scored(terms):
    image = Image.new("RGB", (10, 10), (51, 0, 0))
    truth = np.zeros((1, 10, 10), bool)
    truth[0, 2:6, 2:6] = True
    engine = RewardEngine(TextToMasks(answers.get("seg-r1"), lambda wh: ORIGINAL, load_segmenter("box")), terms)
    text = "<think>there</think> <bbox>[2,2,6,6]</bbox>"
    return engine.score(Completions([text], [False], [9], ["e1"], [image], ["i"], [truth], [None], ["it"]))


def test_a_term_beside_the_recipe_sees_the_picture_and_takes_options(place):
    batch = scored(term(place, "own_terms.red", ", power: 2, scale: 10"))
    assert batch.totals == [pytest.approx(10 * 0.2**2)]
    (rollout,) = batch.rollouts
    assert (rollout.query, rollout.image.size, rollout.masks.shape) == ("it", (10, 10), (1, 10, 10))
    assert type(rollout.masks) is type(rollout.mask) is type(rollout.targets) is np.ndarray
    assert scored(term(place, "own_terms.yes")).totals == [1.0]


def test_a_term_in_the_working_directory_is_found_and_one_of_the_same_name_elsewhere_is_another(place, monkeypatch):
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(place)
    assert term(elsewhere, "own_terms.yes")[0].function.__module__ == "own_terms"
    (elsewhere / "own_terms.py").write_text("def yes(rollout):\n    return 5\n")
    assert scored(term(elsewhere, "own_terms.yes")).totals == [5.0]


@pytest.mark.parametrize(
    ("path", "rest", "message"),
    [
        ("own_terms.gone", "", r"rewards\.own: cannot import 'own_terms\.gone' \(AttributeError: .*gone"),
        ("own_nothing.gone", "", r"cannot import 'own_nothing\.gone' \(ModuleNotFoundError"),
        ("own_terms.red", ", pover: 2", r"unknown option 'pover'; did you mean 'power'\?"),
    ],
)
def test_a_term_that_cannot_be_had_is_one_line(place, path, rest, message):
    with pytest.raises(RecipeError, match=message):
        term(place, path, rest)


def test_a_file_that_python_cannot_read_is_one_line(place):
    (place / "own_terms.py").write_text("def (:")
    with pytest.raises(RecipeError, match=r"cannot import 'own_terms.red' \(SyntaxError"):
        term(place, "own_terms.red")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fails", r"rewards\.own \(own_terms\.fails\) failed on example e1: ZeroDivisionError: division by zero"),
        ("nan", r"rewards\.own gave nan for a completion of example e1"),
        ("text", r"rewards\.own gave 'good' .* a finite number, or None"),
        ("tensor", r"rewards\.own gave tensor"),
    ],
)
def test_what_a_term_gets_wrong_is_one_line_that_names_it(place, name, message):
    with pytest.raises(RecipeError, match=message):
        scored(term(place, f"own_terms.{name}"))


def test_a_data_set_beside_the_recipe_takes_options(place, monkeypatch):
    recipe = place / "r.yaml"
    recipe.write_text(
        "method: sft\npolicy: tiny\nsegmenter: box\n"
        "dataset: {python: own_data.cells, n: 5}\nevaluation: {dataset: {n: 3}}\n"
    )
    read = load_recipe(recipe)
    sections = (read.dataset, read.evaluation.dataset)
    assert [len(datasets.load(one.name, **one.options)) for one in sections] == [5, 3]
    monkeypatch.chdir(place)
    sampled = datasets.load("python:own_data.cells", n=5, sample={"n": 2, "seed": 0})
    assert [one.query for one in sampled] == ["the cell", "the cell"]


def test_a_data_set_that_a_call_names_is_found_in_the_working_directory(place, monkeypatch):
    with pytest.raises(DataError, match="No module named 'own_data'"):
        datasets.load("python:own_data.cells")
    monkeypatch.chdir(place)
    assert len(datasets.load("python:own_data.cells")) == 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cells", {"nn": 3}, r"'python:own_data\.cells' has no option 'nn'; did you mean 'n'"),
        ("cells", {"n": "x"}, "cannot be made with n='x'"),
        ("cells", {"broken": True}, r"python:own_data\.cells: example 2 is a NoneType, no segrl\.types\.Example"),
        ("generator", {}, r"python:own_data\.generator is a generator: a sequence of"),
        ("Fails", {}, r"python:own_data\.Fails: example 0: KeyError: 'slide 7'"),
        ("gone", {}, r"cannot import the data set python:own_data\.gone"),
    ],
)
def test_what_a_data_set_gets_wrong_is_one_line_that_names_it(place, monkeypatch, name, options, message):
    monkeypatch.syspath_prepend(place)
    with pytest.raises(DataError, match=message):
        list(datasets.load(f"python:own_data.{name}", **options))


def test_what_an_answer_format_gets_wrong_is_one_line_that_names_it(place, monkeypatch):
    monkeypatch.syspath_prepend(place)
    with pytest.raises(SegrlError, match=r"answer format python:own_formats\.Fails: parse failed: KeyError: 'bbox'"):
        answers.get("python:own_formats.Fails").parse("<bbox>[1,2,3,4]</bbox>")
    with pytest.raises(SegrlError, match=r"python:own_formats\.Number: prompt returned int, not str"):
        answers.get("python:own_formats.Number").prompt("the cell")
