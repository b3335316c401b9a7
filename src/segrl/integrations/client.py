"""What verl, ms-swift and EasyR1 call: a segrl recipe's reward, asked of `segrl serve-reward`.

Copy this file; it needs nothing but Python, 3.9 or newer. SEGRL_REWARD is the server's address, SEGRL_TOKEN its token,
if it has one. A server that is busy (429, 503), or not there for a moment, is asked again for ten minutes.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

REWARD_NAME, REWARD_TYPE = "segrl", "batch"
"""What EasyR1 reads from the file of a reward function."""


def score(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of text, ground_truth and, where it is known, truncated → one mapping each: reward, status, iou, terms."""
    headers = {"Content-Type": "application/json"}
    if os.environ.get("SEGRL_TOKEN"):
        headers["Authorization"] = f"Bearer {os.environ['SEGRL_TOKEN']}"
    address = os.environ.get("SEGRL_REWARD", "http://127.0.0.1:8321").rstrip("/") + "/score"
    request = urllib.request.Request(address, json.dumps({"rows": rows}).encode(), headers)
    rewards: list[dict[str, Any]] = json.loads(_answer(request))["rewards"]
    return rewards


def _answer(request: urllib.request.Request, patience: float = 600.0) -> bytes:
    end, has_told = time.monotonic() + patience, False
    while True:
        try:
            with urllib.request.urlopen(request, timeout=patience) as answer:
                data: bytes = answer.read()
                return data
        except urllib.error.HTTPError as error:
            if error.code not in (429, 503) or time.monotonic() > end:
                raise ValueError(f"{request.full_url} answered {error.code}: {_said(error)}") from error
            time.sleep(float(error.headers.get("Retry-After") or 1))
        except (OSError, http.client.HTTPException) as error:
            told = (
                f"{request.full_url} cannot be reached ({error}): is segrl serve-reward there? SEGRL_REWARD says where"
            )
            if time.monotonic() > end:
                raise ConnectionError(told) from error
            if not has_told:
                print(f"segrl: {told}; asking again for {patience:.0f} s", file=sys.stderr)
                has_told = True
            time.sleep(1)


def _said(error: urllib.error.HTTPError) -> str:
    """The server's line about what it refuses."""
    text = error.read().decode(errors="replace")
    try:
        return str(json.loads(text)["detail"])
    except (ValueError, KeyError, TypeError):
        return text[:200]


def verl_score(
    data_source: Any, solution_str: str, ground_truth: str, extra_info: Any = None, **kwargs: Any
) -> dict[str, float]:
    """verl's `custom_reward_function`: one completion."""
    (one,) = score([{"text": solution_str, "ground_truth": ground_truth}])
    return {"score": one["reward"] or 0.0, "iou": one["iou"], "parsed": float(one["status"] in ("ok", "no_target"))}


def easyr1_score(reward_inputs: list[dict[str, Any]], **kwargs: Any) -> list[dict[str, float]]:
    """EasyR1's reward function of type batch."""
    rows = [{"text": row["response"], "ground_truth": row["ground_truth"]} for row in reward_inputs]
    return [{"overall": one["reward"] or 0.0, "iou": one["iou"]} for one in score(rows)]


def swift_score(completions: list[str], ground_truth: list[str], **columns: Any) -> list[float | None]:
    """ms-swift's reward function; None where no term applies, which it leaves out."""
    cut = columns.get("is_truncated") or [False] * len(completions)
    rows = [
        {"text": text, "ground_truth": truth, "truncated": bool(one)}
        for text, truth, one in zip(completions, ground_truth, cut)  # noqa: B905 - Python 3.9 has no strict
    ]
    return [one["reward"] for one in score(rows)]


def _register() -> None:
    """Puts `segrl` into ms-swift's table of reward functions."""
    from swift.rewards import ORM, orms

    def call(self: Any, completions: list[str], **columns: Any) -> list[float | None]:
        return swift_score(completions, **columns)

    orms["segrl"] = type("Segrl", (ORM,), {"__call__": call, "__doc__": swift_score.__doc__})


if "swift" in sys.modules:  # ms-swift is loading this file, as it is told by --external_plugins
    _register()
