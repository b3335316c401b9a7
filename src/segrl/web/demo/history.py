"""What was asked in a visit, to be looked at again: the newest first, or the least sure first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from segrl.exports import by_doubt
from segrl.result import Result
from segrl.web.demo import results
from segrl.web.demo.results import ResultStore

Panel = Any
"""`segrl.web.demo.page.Panel`."""
Asked = Any
"""`segrl.web.demo.page.Asked`."""

MOST = 20
"""Questions that a visit keeps."""


@dataclass(frozen=True)
class Entry:
    """What was asked, and the keys of what each policy answered."""

    asked: Asked
    keys: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Past:
    """The list of a visit. names: of the policies. history: its entries, the oldest first; a choice's value is its
    place there."""

    names: Sequence[str]
    store: ResultStore
    history: gr.State
    choice: gr.Radio
    by_doubt: gr.Checkbox

    @classmethod
    def build(cls, names: Sequence[str], store: ResultStore) -> Past:
        """Hidden until something was asked; the order can be chosen from the second question on."""
        choice = gr.Radio(
            [],
            label="Asked before",
            info="Choose one to see its answer again.",
            visible=False,
            elem_classes="segrl-history",
            elem_id="history",
        )
        order = gr.Checkbox(False, label="Least sure first", visible=False, elem_id="by-doubt")
        return cls(names, store, gr.State([]), choice, order)

    @property
    def inputs(self) -> list[Any]:
        """History and order."""
        return [self.history, self.by_doubt]

    @property
    def outputs(self) -> list[Any]:
        """History, choice and order."""
        return [self.history, self.choice, self.by_doubt]

    def keep(self, history: list[Entry], by_doubt: bool, asked: Asked, *keys: str | None) -> tuple[Any, ...]:
        """The outputs with one more entry, which is chosen; one without an answer of every policy is not kept."""
        told = tuple(key for key in keys if key is not None)
        if len(told) == len(keys):
            history = [*history, Entry(asked, told)]
        history = [entry for entry in history if all(self.store.get(key) for key in entry.keys)][-MOST:]
        choice = self.sort(history, by_doubt, len(history) - 1 if history else None)
        return history, choice, gr.Checkbox(visible=len(history) > 1)

    def sort(self, history: list[Entry], by_doubt_first: bool, chosen: int | None) -> Any:
        """The list in the order that was chosen."""
        places = list(range(len(history)))[::-1]
        if by_doubt_first:
            places = by_doubt(places, lambda place: self._confidence(history[place]))
        return gr.Radio(choices=[self._line(history, i) for i in places], value=chosen, visible=bool(history))

    def _shown(self, entry: Entry) -> list[Result]:
        return [result for key in entry.keys if (result := self.store.get(key)) is not None]

    def _confidence(self, entry: Entry) -> float | None:
        known = [one.least_confidence for one in self._shown(entry)]
        return min((one for one in known if one is not None), default=None)

    def _line(self, history: list[Entry], place: int) -> tuple[str, int]:
        entry = history[place]
        told = list(zip(self.names, self._shown(entry), strict=False))
        return results.history_entry(place + 1, entry.asked.query, told, self._confidence(entry)), place


def recall(panels: Sequence[Panel]) -> Callable[..., tuple[Any, ...]]:
    """A function that shows an entry of the history again: picture and query, as if just asked, and the answers."""

    def show(history: list[Entry], chosen: int | None) -> tuple[Any, ...]:
        if chosen is None or not 0 <= chosen < len(history):
            raise gr.Error("This is no longer in the history.")
        asked = history[chosen].asked
        found: list[Result] = []
        for key in history[chosen].keys:
            result = panels[0].kept.store.get(key)
            if result is None:
                raise gr.Error("This answer is no longer on the server: ask again.")
            found.append(result)
        image = found[0].image
        shown = [panel.show(result, asked.name) for panel, result in zip(panels, found, strict=True)]
        image_id = panels[0].kept.pictures.put(image)
        return (image, asked.query, replace(asked, image_id=image_id), *(part for one in shown for part in one))

    return show
