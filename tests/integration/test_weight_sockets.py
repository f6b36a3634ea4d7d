"""What tells the weight transfers of two runs on one machine apart, in two real Ray clusters."""

import json
import subprocess
import sys

IN_A_CLUSTER = """
import json, sys
import verl
import ray
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer
from verl.workers.rollout.vllm_rollout.vllm_rollout import ServerAdapter
from speciarl.patches.verl import job_of_cluster

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
context = ray.get_runtime_context()
patched = all(owner.__init__.__module__ == "speciarl.patches.verl" for owner in (ServerAdapter, vLLMHttpServer))
print(json.dumps([context.get_job_id(), job_of_cluster(context), patched]), flush=True)
sys.stdin.readline()  # until the other cluster is up as well
"""


def test_job_ids_begin_anew_in_every_cluster() -> None:
    """So a job's id alone, which veRL puts into the sockets' names, is the same in both; with its cluster it is not."""
    runs = [
        subprocess.Popen([sys.executable, "-c", IN_A_CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    named = []
    for run in runs:
        assert run.stdout is not None
        named.append(json.loads(next(line for line in run.stdout if line.startswith("["))))
    for run in runs:
        run.communicate("\n", timeout=60)
    (job, ours, patched), (other_job, others, other_patched) = named
    assert job == other_job
    assert ours != others
    assert patched
    assert other_patched
