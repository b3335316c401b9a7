"""What the pages share: templates, style sheets and scripts, numbers as words, and the introduction of a run's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from segrl.evaluation import Overlap
from segrl.evaluation.overlap import words
from segrl.reporting.charts import show

if TYPE_CHECKING:
    from jinja2 import Environment


Numbers = Mapping[str, Any]

_SHUFFLED = " A control: the rewards were shuffled within each group, so they carried no information about the answers."
_NAMED = {"policy": "path", "segmenter": "name", "dataset": "name"}


def introduction(recipe: Numbers, summary: Numbers, overlap: Overlap | None) -> list[str]:
    """Sentences for somebody who sees only this page; as many as the numbers allow."""
    steps = summary["steps"]
    sentences = [_what_was_done(recipe, steps)] if recipe or steps else []
    if "comparison" in summary:
        kinds = summary["comparison"]["slices"].get("kind", {})
        sentences += [_overall(summary["comparison"], overlap), _kinds(kinds), _pointing(summary), _reading(summary)]
    return [sentence for sentence in sentences if sentence]


def facts(recipe: Numbers, summary: Numbers) -> list[str]:
    """What ran, in a few words each."""
    ran = [recipe["method"].upper()] if recipe.get("method") else []
    ran += [f"{name} {recipe[name][key]}" for name, key in _NAMED.items() if recipe.get(name)]
    ran += [f"seed {recipe['seed']}"] if "seed" in recipe else []
    ran += [f"{summary['steps']} steps"] if summary["steps"] else []
    return ran + ([f"{summary['seconds'] / 60:.1f} minutes"] if summary["seconds"] else [])


def signed(value: float | None) -> str:
    """A difference with its sign, two digits; a dash for None."""
    return "–" if value is None else f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def interval(pair: Sequence[float] | None) -> str:
    """An interval of a difference as text; a dash for None."""
    return "–" if pair is None else f"{signed(pair[0])} to {signed(pair[1])}"


def verdict(pair: Sequence[float] | None) -> str:
    """better, worse or unclear: where the interval of a gain lies."""
    if pair is None or pair[0] <= 0 <= pair[1]:
        return "unclear"
    return "better" if pair[0] > 0 else "worse"


def _what_was_done(recipe: Numbers, steps: int) -> str:
    policy = (recipe.get("policy") or {}).get("path", "the policy")
    data = (recipe.get("dataset") or {}).get("name", "its data")
    segmenter = (recipe.get("segmenter") or {}).get("name")
    length = f"for {steps} steps" if steps else "for no step"
    if recipe.get("method") == "sft":
        return f"The policy “{policy}” was trained on gold answers {length} (SFT) on the data set “{data}”."
    return (
        f"The policy “{policy}” reads an image and a query and writes boxes and points, which the frozen "
        f"segmenter “{segmenter}” turns into a mask. It was trained {length} of reinforcement learning (GRPO) on the "
        f"data set “{data}”: it wrote several answers to each query, and those with better masks were made "
        "more likely. It was shown no gold box and no gold point: what it learned here came from the reward."
        + (_SHUFFLED if (recipe.get("control") or {}).get("shuffle_rewards") else "")
    )


def _overall(comparison: Numbers, overlap: Overlap | None) -> str:
    giou = comparison["metrics"]["giou"]
    if giou["difference"] is None:
        return ""
    found = verdict(giou["ci95"])
    outcome = {
        "better": "It became better",
        "worse": "It became worse",
        "unclear": "No change was shown, for the interval holds 0",
    }[found]
    return (
        f"On {comparison['n']} {words(overlap, 'queries')}, the overlap with the true mask (gIoU) went from "
        f"{giou['a']:.2f} to {giou['b']:.2f}, a change of {signed(giou['difference'])} "
        f"(95% interval {interval(giou['ci95'])}). {outcome}."
    )


def _kinds(parts: Mapping[str, Numbers]) -> str:
    gains = {kind: part["metrics"]["giou"] for kind, part in parts.items()}
    if len(gains) < 2:
        return ""
    ordered = sorted(gains.items(), key=lambda item: -(item[1]["difference"] or 0.0))
    sentences = []
    for word, name in (("better", "better"), ("worse", "worse"), ("unclear", "no change shown")):
        kinds = [f"{k.replace('_', ' ')} ({signed(g['difference'])})" for k, g in ordered if verdict(g["ci95"]) == word]
        if kinds:
            sentences.append(f"{name}: {', '.join(kinds)}")
    return "By kind of query, " + "; ".join(sentences) + "."


def _pointing(summary: Numbers) -> str:
    before, after = summary["pointing"]["before"], summary["pointing"]["after"]
    facts = []
    if before["box_area_ratio"] is not None and after["box_area_ratio"] is not None:
        sizes = f"{before['box_area_ratio']:.2f} to {after['box_area_ratio']:.2f}"
        facts.append(f"the typical box went from {sizes} times the area of the true box")
    if before["aimed"] is not None and after["aimed"] is not None:
        facts.append(f"answers that aim at the right thing went from {before['aimed']:.0%} to {after['aimed']:.0%}")
    return f"How it points: {', and '.join(facts)}." if facts else ""


def _reading(summary: Numbers) -> str:
    read = summary["comparison"]["metrics"]["parse_rate"]
    return (
        f"Answers that could be read: {read['a']:.1%} before, {read['b']:.1%} after." if read["a"] is not None else ""
    )


def page_file(name: str) -> str:
    """The text of a style sheet or script of `segrl/reporting/page`."""
    return resources.files("segrl.reporting").joinpath("page", name).read_text(encoding="utf-8")


def environment() -> Environment:
    """Templates of `segrl/reporting/page`; everything is escaped, and a name that is not given is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("segrl.reporting", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"signed": signed, "interval": interval, "show": show}
    made.globals |= {"verdict": verdict}
    return made
