"""One of several training processes: `accelerate launch … --module segrl.training.worker RECIPE DIR [KEY=VALUE …]`.

Trains and nothing else: `segrl train RECIPE --out DIR` afterwards measures before and after, and
writes the report.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from segrl.errors import SegrlError
from segrl.training.ranks import is_main
from segrl.training.stages import load_stages
from segrl.training.train import train


def main(arguments: Sequence[str]) -> int:
    """Runs every stage of the recipe; status 2 and one line for what the user can put right."""
    if len(arguments) < 2:
        print("usage: python -m segrl.training.worker RECIPE DIR [KEY=VALUE …]", file=sys.stderr)
        return 2
    recipe, out, *overrides = arguments
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl)\.")
    model = None
    try:
        for stage in load_stages(recipe, overrides):
            model = train(stage.resolved(model), stage.directory(Path(out))).model_dir
    except SegrlError as error:
        if is_main():
            print(f"segrl: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
