"""Words and votes measured in the tiny world; writes the page between its markers.

    python proof/words.py --out runs/words --page docs/words_and_votes.md
    python proof/words.py --out runs/words --page docs/words_and_votes.md --forms words --seeds 0     (a part of it)

Arms: the vote of 4, 8 and 16 samples against one greedy answer, with the calibration of its agreement; the query sent
to the segmenter as it is, a policy that was taught to answer in words, and the same after reinforcement learning over
words alone, words with a box, and a box alone. What is measured already in --out is not done again; the page says
which arms have not been run.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import segrl
from segrl.evaluation import Decoding, EvalDir
from segrl.files import write_atomically

HERE = Path(__file__).parent
FORMS = ("words", "words_and_boxes", "boxes")
VOTED = {"n": 96, "seed": 9004, "kinds": ["colour_shape", "pair", "several", "none", "size", "position"]}
SPOKEN = {"n": 96, "seed": 9005, "kinds": ["size", "several", "none", "colour_shape"]}
SAMPLES = (16, 8, 4)
BEGIN, END = "<!-- written by proof/words.py -->", "<!-- end of what proof/words.py writes -->"


class Proof:
    """Everything in the directory `out`."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def place(self, name: str) -> EvalDir:
        """Where an arm's evaluation is kept."""
        return EvalDir(self.out / "evaluation" / name)

    def votes(self) -> None:
        """One greedy answer, and the vote of 16 samples; the smaller votes are of the first of these samples."""
        self._measured("greedy", "tiny", VOTED, decoding=Decoding(104, 16))
        self._measured("vote-16", "tiny", VOTED, decoding=Decoding(104, 16, SAMPLES[0]))
        texts = str(self.place("vote-16").records)
        read = {"texts": texts, "answer_format": "seg-r1", "segmenter": "grabcut"}
        frame = {"frame": "resized", "input_wh": [112, 112]}
        for count in SAMPLES[1:]:
            chosen = Decoding(samples=count, temperature=1.0)
            self._measured(f"vote-{count}", "scripted", VOTED, policy_options=frame, decoding=chosen, **read)

    def words(self, form: str, seeds: Sequence[int]) -> None:
        """The cold start in one form, and reinforcement learning from it."""
        gold = {**SPOKEN, "gold": "tight", "says": "words"}
        self._spoken("ceiling", "oracle", gold, policy_options={"prompts": "example"})
        self._measured("asked", "words", SPOKEN, segmenter="shapes")
        cold = self.out / f"sft-{form}"
        if not (cold / "copy" / "model").exists():
            segrl.train(HERE / "words_sft.yaml", cold, f"dataset.says={form}")
        self._spoken(f"cold-{form}", str(cold / "copy" / "model"), SPOKEN)
        for seed in seeds:
            run = self.out / f"rl-{form}-{seed}"
            if not (run / "model").exists():
                start = f"policy.path={cold / 'copy' / 'model'}"
                given = (f"seed={seed}", f"dataset.seed={seed + 1}", "dataset.gold=tight", f"dataset.says={form}")
                segrl.train(HERE / "words_rl.yaml", run, start, *given)
            self._spoken(run.name, str(run / "model"), SPOKEN)

    def _spoken(self, name: str, policy: str, options: dict[str, Any], **settings: Any) -> None:
        chosen = Decoding(128, 16)
        self._measured(name, policy, options, segmenter="shapes", answer_format="concept", decoding=chosen, **settings)

    def _measured(self, name: str, policy: str, options: dict[str, Any], **settings: Any) -> None:
        if not self.place(name).is_finished:
            segrl.evaluate(policy, "tiny", self.place(name).path, dataset_options=options, **settings)

    def page(self) -> str:
        """The measured part of the page."""
        return "\n".join([*self._vote_rows(), "", *self._calibration_rows(), "", *self._word_rows()])

    def _metrics(self, name: str) -> dict[str, Any] | None:
        path = self.place(name).metrics
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def _vote_rows(self) -> Iterator[str]:
        yield f"Vote against one greedy answer, `tiny` with GrabCut, {VOTED['n']} held-out scenes, 95% intervals:"
        yield ""
        yield "| answers | gIoU | instances found | instances right | tokens a question |"
        yield "|---|---|---|---|---|"
        for name, title in [("greedy", "1, greedy"), *((f"vote-{n}", f"{n}, vote") for n in reversed(SAMPLES))]:
            found = self._metrics(name)
            if found is None:
                yield f"| {title} | not run | | | |"
                continue
            of, whole = found["metrics"], self._metrics("vote-16") or found
            tokens = of["tokens"]["value"]
            if name in ("vote-4", "vote-8"):  # the replayed part of the 16, whose tokens are those of all
                tokens = whole["metrics"]["tokens"]["value"] * int(name[5:]) / 16
            cells = [_cell(of[key]) for key in ("giou", "instances_found", "instances_right")]
            yield f"| {title} | {' | '.join(cells)} | {tokens:.0f} |"

    def _calibration_rows(self) -> Iterator[str]:
        found = (self._metrics("vote-16") or {}).get("calibration")
        if not found:
            yield "Calibration: not run."
            return
        yield f"Agreement of 16 samples and what it is worth, {found['n']} objects, AUROC {found['auroc']:.2f}:"
        yield ""
        yield "| agreement | objects | right (IoU ≥ 0.5) | mean IoU |"
        yield "|---|---|---|---|"
        for one in found["bins"]:
            cells = (_cell(one["right"]), _cell(one["iou"]))
            yield f"| {one['above']:g}–{one['to']:g} | {one['n']} | {' | '.join(cells)} |"

    def _word_rows(self) -> Iterator[str]:
        yield f"Words, segmenter `shapes`, {SPOKEN['n']} held-out scenes of kinds {', '.join(SPOKEN['kinds'])}:"
        yield ""
        yield "| policy | gIoU | instances found | N-acc |"
        yield "|---|---|---|---|"
        arms = [("asked", "the query as asked (`--policy words`)"), ("ceiling", "gold names (the ceiling)")]
        for form in FORMS:
            arms.append((f"cold-{form}", f"{form.replace('_', ' ')}: cold start"))
            arms += [(f"rl-{form}-{seed}", f"{form.replace('_', ' ')}: after RL, seed {seed}") for seed in range(3)]
        for name, title in arms:
            found = self._metrics(name)
            cells = ["not run", "", ""]
            if found is not None:
                cells = [_cell(found["metrics"][key]) for key in ("giou", "instances_found", "n_acc")]
            yield f"| {title} | {' | '.join(cells)} |"


def _cell(metric: dict[str, Any]) -> str:
    """A value with its interval."""
    if metric["value"] is None:
        return "–"
    ends = metric["ci95"]
    return f"{metric['value']:.3f}" + ("" if ends is None else f" ({ends[0]:.2f}–{ends[1]:.2f})")


def write_page(page: Path, measured: str) -> None:
    """Puts the measured part between the page's markers."""
    text = page.read_text(encoding="utf-8")
    between = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    write_atomically(page, between.sub(lambda _: f"{BEGIN}\n{measured}\n{END}", text))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    parser.add_argument("--forms", nargs="*", choices=FORMS, default=list(FORMS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--page-only", action="store_true", help="measure nothing, write what is there")
    chosen = parser.parse_args()
    proof = Proof(chosen.out)
    if not chosen.page_only:
        proof.votes()
        for form in chosen.forms:
            proof.words(form, chosen.seeds)
    write_page(chosen.page, proof.page())


if __name__ == "__main__":
    main()
