"""What was used last, within a bound of memory: embeddings, pictures, results and encoded phrases are kept so."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """The values used last, those of `max_bytes` together, for several threads.

    size_of: the bytes of a value; without it each counts one. keeps_last: the newest stays whatever its size, which
    otherwise goes like any other.
    """

    def __init__(
        self, max_bytes: int, size_of: Callable[[Value], int] = lambda value: 1, *, keeps_last: bool = False
    ) -> None:
        self.max_bytes, self.nbytes = max_bytes, 0
        self._size_of, self._least = size_of, int(keeps_last)
        self._kept: OrderedDict[str, Value] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str, *, uses: bool = True) -> Value | None:
        """The value, None if it is not (or no longer) kept. uses: it is the most recently used one now."""
        with self._lock:
            if uses and key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: str, value: Value) -> None:
        """Keeps a value, in place of one with the same key; those used longest ago go."""
        with self._lock:
            if key in self._kept:
                self.nbytes -= self._size_of(self._kept.pop(key))
            self._kept[key] = value
            self.nbytes += self._size_of(value)
            while self.nbytes > self.max_bytes and len(self._kept) > self._least:
                self.nbytes -= self._size_of(self._kept.popitem(last=False)[1])
