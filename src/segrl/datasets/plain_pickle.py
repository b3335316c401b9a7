"""Pickled data files, read without running what they ask for.

A pickle may name any function of any module and have it called. This reader admits what data is
made of and nothing else: dicts, lists, tuples, sets, text, bytes and numbers. numpy's scalars and
arrays of numbers or text come out as plain numbers and lists, so that nothing of numpy's own state
is taken from the file. `refs(unc).p` of RefCOCO, written by Python 2, needs no more.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from segrl.errors import DataError
from segrl.text import first_line

_PLAIN_KINDS = "biufcSU"
"""Kinds of numpy values that are numbers or text; an object array could hold anything."""


class _Dtype:
    """Stands for a pickled numpy dtype: which kind of number, and its byte order."""

    def __init__(self, spec: str, *_: object) -> None:
        self.dtype = np.dtype(spec)
        if self.dtype.kind not in _PLAIN_KINDS:
            raise pickle.UnpicklingError(f"numpy.{self.dtype}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])

    def read(self, raw: str | bytes) -> np.ndarray:
        return np.frombuffer(raw.encode("latin1") if isinstance(raw, str) else raw, self.dtype)


class _Array(list[Any]):
    """Stands for a pickled numpy array: a list that its values are put into."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_column_major, raw = state
        self.extend(dtype.read(raw).reshape(shape, order="F" if is_column_major else "C").tolist())


def _scalar(dtype: _Dtype, raw: str | bytes) -> Any:
    return dtype.read(raw)[0].item()


def _new_array(*_: object) -> _Array:
    return _Array()


def _bytes(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"_codecs.encode to {encoding}")
    return text.encode("latin1")


def _of_values(kind: type[bytes] | type[bytearray]) -> Callable[..., bytes | bytearray]:
    """`kind`, which also takes a number: as many zeros, of memory that the file does not hold."""

    def make(*parts: Any) -> bytes | bytearray:
        if parts and isinstance(parts[0], int):
            raise pickle.UnpicklingError(f"{kind.__name__} of a number")
        return kind(*parts)

    return make


_ADMITTED: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _bytes,
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Array,
}
for _module in ("builtins", "__builtin__"):
    _ADMITTED |= {f"{_module}.{kind.__name__}": kind for kind in (set, frozenset, complex)}
    _ADMITTED |= {f"{_module}.{kind.__name__}": _of_values(kind) for kind in (bytes, bytearray)}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _ADMITTED |= {f"{_module}.scalar": _scalar, f"{_module}._reconstruct": _new_array}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """What stands for `module.name`; raises UnpicklingError naming it unless it is plain data."""
        if f"{module}.{name}" not in _ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return _ADMITTED[f"{module}.{name}"]


def load_plain(path: Path) -> Any:
    """The data in a pickle file of any protocol, Python 2's included (its byte strings become text).

    Raises DataError if the file is missing, cut short, or names anything but plain data.
    """
    try:
        return _load(path, "utf-8")
    except UnicodeDecodeError:
        return _load(path, "latin1")


def _load(path: Path, encoding: str) -> Any:
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding=encoding).load()
    except UnicodeDecodeError:
        raise
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}") from error
    except pickle.UnpicklingError as error:
        raise DataError(f"{path} cannot be read as plain data, it holds or lacks: {error}") from error
    except Exception as error:  # unpicklers raise anything on broken bytes, OverflowError and MemoryError included
        raise DataError(f"{path} is cut short or no pickle: {first_line(error)}") from error
