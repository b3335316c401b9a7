"""Checking a data set: counts, what is missing, the gold check, and the command."""

import doctest

import numpy as np
import pytest
from dataset_files import box_mask, save_image, save_mask
from typer.testing import CliRunner

from segrl import datasets
from segrl.cli.app import app
from segrl.cli.data import describe
from segrl.datasets import check as checking
from segrl.datasets import rows
from segrl.datasets.check import BENCHMARKS, Size, SplitCheck, check
from segrl.datasets.image_masks import LAYOUTS
from segrl.errors import DataError


@pytest.fixture
def chameleon(tmp_path):
    """76 images, as published."""
    for n in range(76):
        save_image(tmp_path / "Imgs" / f"animal-{n}.jpg", (4, 3))
        save_mask(tmp_path / "GT" / f"animal-{n}.png", np.ones((3, 4), dtype=bool))
    return tmp_path


def test_a_complete_set_has_no_faults(chameleon):
    (found,) = check("chameleon", str(chameleon))
    assert (found.split, found.images, found.examples, found.faults) == ("test", 76, 76, ())


def test_counts_that_differ_and_splits_that_are_not_there(chameleon):
    (chameleon / "Imgs" / "animal-5.jpg").unlink()
    (chameleon / "GT" / "animal-5.png").unlink()
    (found,) = check("chameleon", str(chameleon))
    assert found.faults == ("75 images, but 76 are published", "75 examples, but 76 are published")
    (chameleon / "GT" / "animal-6.png").unlink()
    (found,) = check("chameleon", str(chameleon))
    assert found.examples is None
    assert "animal-6.jpg has no mask" in found.faults[0]
    train, test = check("cod10k", str(chameleon))
    assert (train.split, test.split) == ("train", "test")
    assert "Train/GT_Object/" in train.faults[0]


def test_the_gold_check_reads_examples_spread_over_the_set(chameleon, monkeypatch):
    seen = []
    monkeypatch.setattr(checking, "gold_iou", lambda examples, segmenter: seen.append([e.id for e in examples]) or 0.4)
    (found,) = check("chameleon", str(chameleon), segmenter=object(), n_gold=2)
    assert seen.pop() == ["animal-0", "animal-43"]
    assert found.gold_iou == 0.4
    assert "below 0.5" in found.faults[0]
    (found,) = check("chameleon", str(chameleon), segmenter=object(), n_gold=2, gold_floor=0.3)
    assert found.faults == ()
    (chameleon / "Imgs" / "animal-0.jpg").write_bytes(b"no image")
    (found,) = check("chameleon", str(chameleon), segmenter=object(), n_gold=2)
    assert "animal-0.jpg" in found.faults[0]


def test_ones_own_data_is_read_once(tmp_path):
    save_image(tmp_path / "images" / "a.png")
    save_mask(tmp_path / "masks" / "a.png", box_mask((1, 1, 3, 3)))
    (found,) = check("folder", str(tmp_path), options={"query": "x"})
    assert (found.split, found.examples, found.faults) == ("all", 1, ())
    (found,) = check("folder", str(tmp_path), options={"qeury": "x"})
    assert "'query'" in found.faults[0]


def test_a_split_of_ones_own_data_goes_to_its_reader(tmp_path):
    import datasets as hf

    save_image(tmp_path / "a.png")
    row = {"image": [str(tmp_path / "a.png")], "query": ["x"], "boxes": [[1, 1, 3, 3]]}
    hf.DatasetDict({name: hf.Dataset.from_dict(row) for name in ("train", "val")}).save_to_disk(tmp_path / "table")
    (found,) = check("hf", str(tmp_path / "table"), splits=["val"])
    assert (found.split, found.faults) == ("val", ())
    assert describe(found) == "hf val: 1 examples, no published count to compare with"
    (missing,) = check("hf", str(tmp_path / "table"), splits=["test"])
    assert "has no split 'test'" in missing.faults[0]
    (refused,) = check("tiny", splits=["val"], options={"n": 1, "seed": 0})
    assert "'tiny' has no option 'split'" in refused.faults[0]


def test_unknown_names_and_splits():
    with pytest.raises(DataError, match="'refcoco'"):
        check("refcoc", ".")
    with pytest.raises(DataError, match="testA, testB"):
        check("refcoco", ".", splits=["test"])
    for name, splits in (("refcoco", None), ("hf", ["train"])):
        with pytest.raises(DataError, match="with --split"):
            check(name, ".", splits=splits, options={"split": "val"})


def test_every_benchmark_can_be_loaded_and_every_layout_has_its_page():
    assert BENCHMARKS.keys() <= set(datasets.NAMES)
    assert LAYOUTS.keys() <= BENCHMARKS.keys()
    for name, layout in LAYOUTS.items():
        assert set(BENCHMARKS[name].splits) == set(layout.splits), name
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.page.startswith("http")
        for split in benchmark.splits:
            with pytest.raises(DataError, match=r"nowhere"):
                datasets.load(name, root="nowhere", **benchmark.split_options(split))


def test_a_split_without_published_counts_is_not_compared():
    assert SplitCheck("x", "val", Size(), 3, 9).faults == ()
    assert SplitCheck("x", "val", Size(3), 3, 9).faults == ()
    assert SplitCheck("x", "val", Size(None, 8), 3, 9).faults == ("9 examples, but 8 are published",)
    assert SplitCheck("x", "val", Size(3, 9), None, 9).faults == ()


def test_the_command(chameleon):
    done = CliRunner().invoke(app, ["data", "check", "chameleon", "--root", str(chameleon)])
    assert (done.exit_code, done.stdout) == (0, "chameleon test: 76 images, 76 examples, as published\n")
    missing = CliRunner().invoke(app, ["data", "check", "reasonseg", "--root", str(chameleon), "--split", "val"])
    assert missing.exit_code == 1
    assert "reasonseg val: not there" in missing.stdout
    assert "official page: https://github.com/dvlab-research/LISA" in missing.stdout


def test_the_commands_options(tmp_path):
    save_image(tmp_path / "images" / "a.png")
    save_mask(tmp_path / "masks" / "a.png", box_mask((1, 1, 3, 3)))
    command = ["data", "check", "folder", "--root", str(tmp_path)]
    done = CliRunner().invoke(app, [*command, "--option", "query=a dog", "--option", "mask_values=binary"])
    assert done.exit_code == 0
    assert "1 examples, no published count to compare with" in done.stdout
    wrong = CliRunner().invoke(app, [*command, "--option", "query"])
    assert wrong.exit_code == 2
    assert "KEY=VALUE" in wrong.stderr
    assert CliRunner().invoke(app, ["data", "check", "foldr", "--root", "."]).exit_code == 2


def test_examples_in_docstrings():
    assert doctest.testmod(rows).failed == doctest.testmod(checking).failed == 0
