"""What the readers share: rows that become examples when asked for, seeded subsets, missing files."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar, overload

from segrl.datasets.drawing import Canvas
from segrl.errors import DataError
from segrl.images import AS_IT_IS, ImageBytes, PictureOptions, read_picture
from segrl.types import Example


class HasImage(Protocol):
    """A row that knows its image file."""

    @property
    def image(self) -> Path:
        """The image file."""


Row = TypeVar("Row", bound=HasImage)


class Examples(Sequence[Example]):
    """A sequence of examples that are made when they are asked for; a slice is a list of them.

    pictures: what the reader of pictures is told, for every set the option `pictures` (`images.PictureOptions`).
    """

    pictures: PictureOptions = AS_IT_IS
    made_of: Sequence[Sequence[Example]] = ()
    """Other sets whose pictures these are."""

    def read_with(self, pictures: PictureOptions) -> None:
        """Pictures are read so from now on. Raises DataError where a set that it is made of reads no files."""
        self.pictures = pictures
        pass_on(pictures, *self.made_of)

    def canvas(self, file: Path | ImageBytes) -> Canvas:
        """An image file, read, to draw its masks on."""
        return Canvas(read_picture(file, str(file), self.pictures), self.pictures)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        """The example, read from disk. Raises DataError naming the file or row that cannot be used."""
        places = range(len(self))[index]
        return self.example(places) if isinstance(places, int) else [self.example(place) for place in places]

    @abstractmethod
    def example(self, place: int) -> Example:
        """The example that stands at `place`, which lies in [0, n)."""


class Rows(Examples, Generic[Row]):
    """Examples made from rows; an image and its masks are read when the example is asked for.

    rows: light descriptions, one per example, in the order of the examples. Raises DataError for no rows
    at all, and for an image file that is not there.
    """

    def __init__(self, rows: Sequence[Row], name: str) -> None:
        self.rows = rows
        if not self.rows:
            raise DataError(f"{name} holds no examples")
        require_files(row.image for row in self.rows)

    @property
    def n_images(self) -> int:
        """Number of different image files."""
        return len({row.image for row in self.rows})

    def __len__(self) -> int:
        return len(self.rows)

    def example(self, place: int) -> Example:
        return self.read(self.rows[place])

    @abstractmethod
    def read(self, row: Row) -> Example:
        """The example that a row describes."""


def pass_on(pictures: PictureOptions, *sets: Sequence[Example]) -> None:
    """Tells sets how to read their pictures. Raises DataError for one that reads no files."""
    for examples in sets:
        if not isinstance(examples, Examples):
            raise DataError(f"{type(examples).__name__} reads no picture files: leave out the option pictures")
        examples.read_with(pictures)


def files_by_stem(folder: Path, suffixes: Collection[str], starts_with: str = "") -> dict[str, Path]:
    """The files of a folder by stem, sorted by name; hidden ones, other suffixes and other beginnings are passed over.

    Raises DataError naming two files of one stem.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith(".") or not path.stem.startswith(starts_with):
            continue
        if path.stem in files:
            raise DataError(f"{files[path.stem]} and {path.name} have the same stem: keep one of them")
        files[path.stem] = path
    return files


def require_files(paths: Iterable[Path]) -> None:
    """Raises DataError naming the first file that is not there and how many are missing in all."""
    missing = sorted(path for path in set(paths) if not path.is_file())
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"the image {missing[0]} is missing{more}")


def distinct(ids: Iterable[str]) -> list[str]:
    """The ids with `-2`, `-3`, … after those that come again.

    >>> distinct(["7-1", "7-1", "8-1"])
    ['7-1', '7-1-2', '8-1']
    """
    name = Distinct()
    return [name(one) for one in ids]


class Distinct:
    """`distinct` for ids that come one at a time."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def __call__(self, name: str) -> str:
        """The id, with its number behind it if it came before."""
        self._seen[name] += 1
        return name if self._seen[name] == 1 else f"{name}-{self._seen[name]}"


def first_folder(candidates: Sequence[Path], what: str) -> Path:
    """The first of the folders that exists. Raises DataError saying `what` was looked for, and where."""
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise DataError(f"{what} are not there: looked for {', '.join(map(str, candidates))}")


def spread(count: int, wanted: int | None) -> list[int]:
    """`wanted` places below `count` at even distances, the first included; all of them for None or too many.

    >>> spread(8, 3)
    [0, 2, 5]
    """
    n = count if wanted is None else min(wanted, count)
    return [i * count // n for i in range(n)]
