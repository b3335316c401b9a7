"""The disk cache: what comes back, what damage does, and that the limit holds."""

from __future__ import annotations

import os
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tries import tries

from segrl.segmenters.cache import DiskCache
from segrl.segmenters.protocol import Embedding


def embedding(value: int, numbers: int = 100) -> Embedding:
    return Embedding((5, 7), {"level_0": torch.full((numbers,), float(value)), "level_1": torch.ones(2, 3)})


def files(directory):
    return sorted(p.name for p in directory.glob("*/*"))


def test_what_is_put_comes_back(tmp_path):
    cache = DiskCache(tmp_path, "encoder", 10_000)
    cache.put("a", embedding(3))
    found = DiskCache(tmp_path, "encoder", 10_000).get("a")
    assert found.image_hw == (5, 7)
    assert torch.equal(found.tensors["level_0"], torch.full((100,), 3.0))
    assert cache.get("b") is None
    assert DiskCache(tmp_path, "other", 10_000).get("a") is None
    assert DiskCache(tmp_path, "encoder", 10_000, torch.bfloat16).get("a") is None


def test_half_precision_is_written_as_such(tmp_path):
    cache = DiskCache(tmp_path, "encoder", 10_000, torch.bfloat16)
    cache.put("a", embedding(3))
    assert cache.get("a").tensors["level_0"].dtype == torch.bfloat16


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "no metadata"])
def test_a_damaged_file_is_removed_and_said(tmp_path, caplog, damage):
    cache = DiskCache(tmp_path, "encoder", 10_000)
    cache.put("a", embedding(3))
    [path] = tmp_path.glob("*/*.safetensors")
    content = bytearray(path.read_bytes())
    if damage == "no metadata":
        from safetensors.torch import save

        content = bytearray(save({"level_0": torch.ones(3)}))
    content[-30] ^= damage == "flip"
    path.write_bytes({"cut": content[:-9], "empty": b"", "text": b"no tensors here"}.get(damage, content))
    assert cache.get("a") is None
    assert "is damaged" in caplog.text
    assert files(tmp_path) == []
    cache.put("a", embedding(3))
    assert cache.get("a") is not None


def test_the_least_recently_used_go_first(tmp_path):
    cache = DiskCache(tmp_path, "encoder", 2_000)
    for age, key in enumerate("abc"):
        cache.put(key, embedding(1))
        os.utime(tmp_path / "encoder" / f"{key}.safetensors", (age, age))
    cache.get("a")
    cache.put("d", embedding(1))
    assert files(tmp_path) == ["a.safetensors", "c.safetensors", "d.safetensors"]


@tries(25)
@given(puts=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 800)), max_size=12))
def test_the_limit_holds(tmp_path_factory, puts):
    directory = tmp_path_factory.mktemp("cache")
    cache = DiskCache(directory, "encoder", 3_000)
    for key, numbers in puts:
        cache.put(key, embedding(1, numbers))
        assert sum(p.stat().st_size for p in directory.glob("*/*")) <= 3_000
        kept = cache.get(key)
        assert kept is None or len(kept.tensors["level_0"]) in {n for k, n in puts if k == key}


def test_files_that_a_dead_process_left_are_removed(tmp_path):
    cache = DiskCache(tmp_path, "encoder", 10_000)
    (tmp_path / "encoder" / "x.tmp").write_bytes(b"half a file")
    cache.put("a", embedding(1))
    assert files(tmp_path) == ["a.safetensors"]


def test_threads_share_a_directory(tmp_path):
    caches = [DiskCache(tmp_path, "encoder", 2_500) for _ in range(4)]

    def work(cache):
        for i in range(10):
            cache.put(f"{i % 5}", embedding(1))
            cache.get(f"{(i + 2) % 5}")

    threads = [threading.Thread(target=work, args=(cache,)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(p.stat().st_size for p in tmp_path.glob("*/*")) <= 2_500
