"""Pictures in shards: what is read, what is written, what is done again."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from fake_server import MODEL, FakeServer, serving, text
from PIL import Image
from typer.testing import CliRunner

from segrl.cli.app import app
from segrl.errors import DataError, SegrlError
from segrl.folder_job import Plan, find_shards, segment_shards, shards
from segrl.masks import from_rle

OK = '[{"bbox_2d": [7, 7, 21, 21]}]'


def picture(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (56, 56), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def sources(tmp_path) -> dict[str, str]:
    """Of each kind: three pictures, and one that is none in the tar file."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.png").write_bytes(picture(i))
    rows = [{"id": f"row{i}", "image": {"bytes": picture(10 + i), "path": None}} for i in range(3)]
    (tmp_path / "set").mkdir()
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "set" / "train.parquet", row_group_size=2)
    with tarfile.open(tmp_path / "web.tar", "w") as archive:
        for name, data in [*((f"{i}.png", picture(20 + i)) for i in range(3)), ("bad.jpg", b"no"), ("0.txt", b"x")]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    names = {"folder": folder, "parquet": tmp_path / "set" / "train.parquet", "tar": tmp_path / "web.tar"}
    return {**{kind: str(path) for kind, path in names.items()}, "hub": f"hub:{tmp_path / 'set'}@train"}


def plan_of(fake: FakeServer, out: Path, **options) -> Plan:
    policy = {"policy": f"openai:{MODEL}@{fake.url}", "segmenter": "box"}
    return Plan(out, (), policy, queries=("the box", "the lid"), **options)


def rows_of(out: Path) -> list[dict]:
    return [row for path in sorted((out / "shards").glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]


@pytest.mark.parametrize(
    ("kind", "names", "n_shards"),
    [
        ("folder", ["0.png", "1.png", "2.png"], 1),
        ("parquet", ["row0", "row1", "row2"], 2),
        ("tar", ["0.png", "1.png", "2.png"], 1),
        ("hub", ["row0", "row1", "row2"], 1),
    ],
)
def test_every_picture_is_answered_once(sources, tmp_path, kind, names, n_shards):
    found = find_shards([sources[kind]])
    assert len(found) == n_shards
    told: list[tuple[int, int]] = []
    with serving(text(OK)) as fake:
        plan = plan_of(fake, tmp_path / "out")
        summary = segment_shards(found, plan, on_shard=lambda *now: told.append(now))
        again = segment_shards(find_shards([sources[kind]]), plan)
    assert len(fake.asked) == 6
    rows = rows_of(tmp_path / "out")
    assert [Path(row["image"]).name for row in rows] == [name for name in names for _ in range(2)]
    assert [row["query"] for row in rows[:2]] == ["the box", "the lid"]
    assert rows[0]["status"] == "ok"
    assert (rows[0]["width"], rows[0]["height"], rows[0]["boxes"]) == (56, 56, [[7, 7, 21, 21]])
    mask = {"size": [56, 56], "counts": rows[0]["masks"][0]}
    assert from_rle(mask).sum() == 14 * 14
    assert told == [(i + 1, n_shards) for i in range(n_shards)]
    broken = 1 if kind == "tar" else 0
    assert (summary.new, again.skipped, again.new) == (3 + broken, 3 + broken, 0)
    assert summary.tallies == again.tallies
    assert summary.tallies["the box"].found == 3
    assert [("bad.jpg" in line) for line in again.broken] == [True] * broken


def test_what_is_missing_or_another_one_is_done_again(sources, tmp_path):
    with serving(text(OK)) as fake:
        plan = plan_of(fake, tmp_path / "out")
        both = find_shards([sources["parquet"], sources["tar"]])
        segment_shards(both, plan)
        (tmp_path / "out" / "shards" / "web.parquet").unlink()  # a disk that lost it
        assert segment_shards(both, plan).new == 4
        journal = tmp_path / "out" / "shards.jsonl"
        lines = journal.read_text().splitlines(keepends=True)
        journal.write_text("".join(line for line in lines if "train-00001" not in line))  # killed before its line
        assert segment_shards(both, plan).new == 1
        os.utime(sources["tar"], ns=(1, 1))
        assert segment_shards(find_shards([sources["parquet"], sources["tar"]]), plan).new == 4
        other = plan_of(fake, tmp_path / "out", min_area=5)
        with pytest.raises(SegrlError, match="min_area"):
            segment_shards(both, other)
    assert len(rows_of(tmp_path / "out")) == 12


def test_two_shards_of_one_name_and_loose_pictures_in_chunks(sources, tmp_path, monkeypatch):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "web.tar").write_bytes(Path(sources["tar"]).read_bytes())
    names = [shard.name for shard in find_shards([sources["tar"], str(tmp_path / "b" / "web.tar")])]
    assert names == ["web", "web-again2"]
    monkeypatch.setattr(shards, "IMAGES_PER_SHARD", 2)
    assert [len(shard.images) for shard in find_shards([sources["folder"]])] == [2, 1]
    assert [len(shard.images) for shard in find_shards([sources["folder"]], limit=1)] == [1]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("no.parquet", "there is no file no.parquet"),
        ("hub:/no/where", "cannot open hub:/no/where"),
        ("{tmp}/other.parquet", "has no column image, but a"),
        ("{tmp}/text.parquet", "cannot read"),
        ("{tmp}/text.tar", "cannot read"),
    ],
)
def test_sources_that_cannot_be_used_are_told_in_one_line(tmp_path, source, said):
    parquet.write_table(pa.Table.from_pylist([{"a": 1}]), tmp_path / "other.parquet")
    for name in ("text.parquet", "text.tar"):
        (tmp_path / name).write_text("nothing of the kind, but long enough for a header " * 20)
    with pytest.raises(DataError) as caught:
        read_all(source.format(tmp=tmp_path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_from_the_command_line(sources, tmp_path):
    with serving(text(OK)) as fake:
        model = ["--policy", f"openai:{MODEL}@{fake.url}", "--segmenter", "box", "--out", str(tmp_path / "out")]
        done = CliRunner().invoke(app, ["segment", sources["tar"], "-q", "the box", *model])
        assert done.exit_code == 1, done.output  # a picture could not be used
        assert "bad.jpg" in done.output
        assert len(rows_of(tmp_path / "out")) == 3
        wrong = CliRunner().invoke(app, ["segment", sources["tar"], "-q", "the box", *model, "--format", "coco"])
    assert wrong.exit_code == 2
    assert "--format cannot be used with shards" in wrong.output


def read_all(source: str) -> None:
    for shard in find_shards([source]):
        list(shards.pictures_of(shard))


RAY = ("ray", "jsonschema", "referencing", "rpds-py", "jsonschema-specifications", "attrs", "msgpack")
OF_RAY = {"RAY_agent_register_timeout_ms": "600000", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
OF_RAY |= {"RAY_memory_monitor_refresh_ms": "0"}
"""Its processes take longer than it waits where other work runs beside, and that work's memory is no reason to kill
them; loopback alone, as Ray says it."""
SCRIPT = Path(__file__).parents[1] / "support" / "ray_job.py"


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_node_of_a_ray_cluster_dies(tmp_path):
    """Two nodes, one removed in the middle: every shard is there once, and what one process makes of it."""
    import extra

    paths = os.pathsep.join([str(SCRIPT.parent), str(extra.folder("ray", *RAY))])
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=3500,
        env={**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", **OF_RAY},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["nodes"] == [2, 1]
    assert found["journal"] == sorted(set(found["journal"]))  # each once
    assert len(found["journal"]) == found["shards"]
    assert found["same_as_one_process"]
    assert found["begun_twice"] >= 1
    assert found["left_after_a_stop"] < found["shards"]
    assert found["evaluation_is_the_same"]
