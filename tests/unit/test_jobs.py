"""The journal of a job, its settings, its workers in this process, and its progress line."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from segrl.errors import DataError, SegrlError
from segrl.files import read_rows
from segrl.jobs import InProcess, Journal, WorkerInfo, check_settings, locked
from segrl.jobs.progress import EVERY_SECONDS, NowAndThen, Progress


def by_id(row: dict) -> int | None:
    return row.get("id")


def journal(path: Path, **options) -> Journal:
    return Journal(path, by_id, voids=lambda row: row.get("gone", []), **options)


def test_rows_come_back_whatever_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    first = journal(path)
    first.add({"id": 1, "n": "é"}, {"id": 2})
    first.add({"id": 1, "n": "again"})
    assert (list(first), first.get(1), first.get(3)) == ([1, 2], {"id": 1, "n": "again"}, None)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    second = journal(path)
    assert second.get(1) == {"id": 1, "n": "é"}
    second.add({"id": 1, "n": "again"})
    assert path.read_bytes() == whole


def test_rows_make_others_void(tmp_path: Path) -> None:
    one = journal(tmp_path / "rows.jsonl", note=lambda row: row.get("n"))
    one.add({"id": 1, "n": "a"}, {"id": 2, "n": "b"})
    one.add({"id": 3, "n": "c", "gone": [1]})
    one.add({"gone": [2]})
    one.add({"id": 1, "n": "d"})
    for found in (one, journal(tmp_path / "rows.jsonl", note=lambda row: row.get("n"))):
        assert dict(found.notes) == {3: "c", 1: "d"}
        assert list(found) == [3, 1]


def test_files_of_others_are_read_and_not_written(tmp_path: Path) -> None:
    journal(tmp_path / "other").add({"id": 1})
    (tmp_path / "other").write_text((tmp_path / "other").read_text() + '{"id": 2')
    own = journal(tmp_path / "own", others=[tmp_path / "other"])
    own.add({"id": 3}, remember=False)
    assert list(own) == [1]
    assert read_rows(tmp_path / "own") == [{"id": 3}]
    assert (tmp_path / "other").read_text().endswith('{"id": 2')
    both = Journal(None, by_id, others=[tmp_path / "own", tmp_path / "other"])
    assert list(both.rows([3, 1])) == [{"id": 3}, {"id": 1}]


@pytest.mark.parametrize("line", ["nonsense", "[1]", "\0\0\0"])
def test_a_line_that_is_no_row_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(f"{line}\n")
    with pytest.raises(DataError, match=r"rows\.jsonl holds a line that is no record"):
        journal(tmp_path / "rows.jsonl")


def test_settings_that_differ_are_named(tmp_path: Path) -> None:
    check_settings(tmp_path, {"a": {"b": 1}}, {"a": {"b": 1}}, "masks made")
    with pytest.raises(SegrlError, match=r"masks made with other settings \(a\.b: 1 there, 2 now; c: None there"):
        check_settings(tmp_path, {"a": {"b": 1}}, {"a": {"b": 2}, "c": 3}, "masks made")


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path / "lock", "taken"), pytest.raises(DataError, match="taken"):
        locked(tmp_path / "lock", "taken", 0.0).__enter__()
    with locked(tmp_path / "lock", "taken"):
        assert (tmp_path / "lock").exists()


def test_tasks_are_taken_as_they_are_asked_for() -> None:
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for task in range(4):
            taken.append(task)
            yield task

    def work(tasks: Iterable[int], worker: WorkerInfo) -> Iterator[int]:
        assert (taken, worker) == ([], WorkerInfo(0, 1))
        for task in tasks:
            yield 10 * task

    for done, (task, result) in enumerate(InProcess().run(tasks(), work), 1):
        assert (task, result, len(taken)) == (done - 1, 10 * task, done)


def test_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("segrl.jobs.progress.time.monotonic", lambda: clock[0])
    console = Console(file=io.StringIO(), width=80)
    with Progress("images", console=console) as progress:
        for done in range(1, 5):
            clock[0] += EVERY_SECONDS / 2
            progress.update(done, 4, "gIoU 0.5" if done == 2 else "")
    assert console.file.getvalue().splitlines() == ["2/4 images, gIoU 0.5, about 10 s left", "4/4 images, in 20 s"]
    first = NowAndThen(at_once=True)
    assert [first.is_due(), first.is_due(), first.is_due(is_last=True)] == [True, False, True]
