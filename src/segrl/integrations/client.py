"""What verl and EasyR1 call: their reward functions, asking `segrl serve-reward`.

Copy this file; it needs nothing but Python. SEGRL_REWARD is the server's address, SEGRL_TOKEN its token, if it
has one. A server that is busy (429, 503) is asked again for ten minutes.
"""

import json
import os
import time
import urllib.error
import urllib.request
from typing import Any


def score(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of text and ground_truth → one mapping each: reward, status, iou, terms."""
    headers = {"Content-Type": "application/json"}
    if os.environ.get("SEGRL_TOKEN"):
        headers["Authorization"] = f"Bearer {os.environ['SEGRL_TOKEN']}"
    address = os.environ.get("SEGRL_REWARD", "http://127.0.0.1:8321") + "/score"
    request = urllib.request.Request(address, json.dumps({"rows": rows}).encode(), headers)
    rewards: list[dict[str, Any]] = json.loads(_answer(request))["rewards"]
    return rewards


def _answer(request: urllib.request.Request, patience: float = 600.0) -> bytes:
    end = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(request, timeout=patience) as answer:
                data: bytes = answer.read()
                return data
        except urllib.error.HTTPError as error:
            if error.code not in (429, 503) or time.monotonic() > end:
                raise
            time.sleep(float(error.headers.get("Retry-After") or 1))


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
