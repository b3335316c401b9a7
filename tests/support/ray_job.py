"""Run by test_folder_shards.py where Ray is installed: shards on a local cluster of two nodes, one of which is removed.

Prints what was found as one line of JSON.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import time
import warnings
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
from eval_samples import write_examples
from PIL import Image
from small import save_policy

from segrl.evaluation import EvalDir, Share, run, run_on
from segrl.files import read_rows
from segrl.folder_job import Plan, find_shards, segment_shards
from segrl.jobs.cluster import Cluster

SHARDS, IN_EACH = 10, 3


def write_shards(place: Path) -> list[str]:
    """Tar files of small pictures that differ."""
    names = []
    for number in range(SHARDS):
        names.append(str(place / f"part-{number:02d}.tar"))
        with tarfile.open(names[-1], "w") as archive:
            for i in range(IN_EACH):
                file = io.BytesIO()
                Image.new("RGB", (112, 112), (number * 20, i * 50, 0)).save(file, "PNG")
                member = tarfile.TarInfo(f"{i}.png")
                member.size = file.tell()
                file.seek(0)
                archive.addfile(member, file)
    return names


def rows_of(out: Path) -> list[Any]:
    """All answers, by shard."""
    return [parquet.read_table(path).to_pylist() for path in sorted((out / "shards").glob("*.parquet"))]


class Stop(Exception):
    """The driver ends here."""


def main(place: Path) -> None:
    """Both jobs, on the cluster and in this process."""
    import ray
    from ray.cluster_utils import Cluster as Nodes

    here = {"node_ip_address": "127.0.0.1", "include_dashboard": False}
    cluster = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, **here})
    removed = [cluster.add_node(num_cpus=1, **here) for _ in range(2)][1]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    policy = {"policy": str(save_policy(place / "policy")), "segmenter": "box", "max_new_tokens": 8}
    plan = Plan(place / "out", (), policy, queries=("the red circle",), batch_size=1)
    shards = find_shards(write_shards(place))
    nodes = [working()]
    done_before = stopped_after(2, shards, plan)

    def on_shard(done: int, total: int) -> None:
        if done == done_before + 3 and len(nodes) == 1:
            cluster.remove_node(removed, allow_graceful=False)
            nodes.append(working(until=1))

    executor = Cluster(cluster.address)
    rounds = count_rounds(executor)
    summary = segment_shards(shards, plan, executor=executor, on_shard=on_shard)
    settings = write_examples(place, 12)
    run_on(settings, place / "eval", Cluster(cluster.address))
    ray.shutdown()
    segment_shards(shards, Plan(place / "alone", (), policy, queries=plan.queries, batch_size=1))
    run(settings, place / "eval_alone", share=Share())
    metrics = [EvalDir(place / name).metrics.read_bytes() for name in ("eval", "eval_alone")]
    found = {
        "nodes": nodes,
        "shards": SHARDS,
        "journal": sorted(row["shard"] for row in read_rows(place / "out" / "shards.jsonl")),
        "same_as_one_process": rows_of(place / "out") == rows_of(place / "alone"),
        "begun_twice": len(rounds) - 1,
        "left_after_a_stop": summary.new // IN_EACH,
        "evaluation_is_the_same": metrics[0] == metrics[1],
    }
    print(json.dumps(found))


def working(until: int | None = None, patience_s: float = 600) -> int:
    """Nodes that have a core; asked again until there are `until`: a cluster takes its time to miss one."""
    import ray

    give_up = time.monotonic() + patience_s
    while True:
        count = sum(bool(node["Alive"] and node["Resources"].get("CPU")) for node in ray.nodes())
        if until is None or count == until or time.monotonic() > give_up:
            return count
        time.sleep(0.2)


def stopped_after(count: int, shards: Any, plan: Plan) -> int:
    """A driver that ends after so many shards; how many are finished then."""

    def stop(done: int, total: int) -> None:
        if done == count:
            raise Stop

    try:
        segment_shards(shards, plan, executor=Cluster("auto"), on_shard=stop)
    except Stop:
        return len(read_rows(plan.out / "shards.jsonl"))
    raise AssertionError("it did not stop")


def count_rounds(executor: Cluster) -> list[int]:
    """A list that grows with each round of actors."""
    rounds: list[int] = []
    whole = executor._round

    def counted(ray: Any, tasks: Any, work: Any) -> Any:
        rounds.append(1)
        return whole(ray, tasks, work)

    executor._round = counted  # type: ignore[method-assign]
    return rounds


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]))
