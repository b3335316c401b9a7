"""What was used last is kept, within a bound."""

from __future__ import annotations

from segrl.recent import Recent


def test_what_was_used_longest_ago_goes_first():
    kept = Recent[str](3)
    for key in "abc":
        kept.put(key, key * 2)
    assert kept.get("a") == "aa"
    kept.put("d", "dd")
    assert [kept.get(key) for key in "abcd"] == ["aa", None, "cc", "dd"]
    assert kept.get("a", uses=False) == "aa"
    kept.put("e", "ee")
    assert kept.get("a") is None
    assert len(kept) == 3


def test_sizes_are_those_of_what_is_kept_now():
    kept = Recent[bytes](10, len)
    kept.put("a", bytes(6))
    kept.put("a", bytes(4))
    assert kept.nbytes == 4
    kept.put("b", bytes(7))
    assert (kept.nbytes, kept.get("a")) == (7, None)
    kept.put("c", bytes(11))
    assert (kept.nbytes, len(kept)) == (0, 0)


def test_the_newest_may_stay_whatever_its_size():
    kept = Recent[bytes](10, len, keeps_last=True)
    kept.put("a", bytes(3))
    kept.put("b", bytes(20))
    assert (kept.get("a"), len(kept), kept.nbytes) == (None, 1, 20)
