"""A laptop run in this one process: veRL's trainer, worker, engine, replay buffer and losses, and our rewards, as in a
whole run with the same configuration; what generates, Ray and the queue's servers are stood in for."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transfer_queue
import verl  # noqa: F401  (loads our plug-in)
from composed_run import compose_run
from held_queue import HeldQueue
from laptop_run import LaptopRun, command
from loss_calls import LossCall
from omegaconf import OmegaConf
from told_answers import ToldWorker
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config
from verl.utils.device import auto_set_device
from verl.utils.tensordict_utils import assign_non_tensor_data
from verl.workers.engine_workers import ActorRolloutRefWorker

from speciarl.training.agent_loop import calls
from speciarl.training.trainer.run_verifier import RunVerifier
from speciarl.training.trainer.trainer import SpeciaRLTrainer

TENSORS = ("old_log_prob", "log_prob", "advantages", "response_mask")


@dataclass(frozen=True, slots=True)
class OneProcessRun:
    """A run that has ended."""

    run: LaptopRun
    losses: list[LossCall]
    """What reached the policy loss, in order."""


class OneWorkerGroup:
    """One worker of veRL's, asked directly, where its group of Ray actors would be."""

    def __init__(self, config: Any, role: str) -> None:
        self._worker = ActorRolloutRefWorker(config, role=role)
        self._worker.init_model()
        self._dispatch_info = {"actor": [0]}

    def compute_log_prob(self, batch: Any) -> Any:
        return _bridge(self._worker.compute_log_prob, batch)

    def compute_ref_log_prob(self, batch: Any) -> Any:
        return _bridge(self._worker.compute_ref_log_prob, batch)

    def update_actor(self, batch: Any) -> Any:
        return _bridge(self._worker.update_actor, batch)


def _bridge(method: Any, batch: Any) -> Any:
    """Call a worker's method with the data behind a batch, as veRL's `tqbridge` does in the worker."""
    data = transfer_queue.kv_batch_get(batch.keys, batch.partition_id)
    for name, value in batch.extra_info.items():
        assign_non_tensor_data(data, name, value)
    output = method(data)
    if not output.batch_size:
        return output
    columns = [name for name in output.keys() if isinstance(output.get(name), torch.Tensor)]  # noqa: SIM118
    return transfer_queue.kv_batch_put(batch.keys, batch.partition_id, output.select(*columns))


class OneWorkerLoops:
    """Our agent-loop worker in this process, where its manager would be. A batch is done when it returns."""

    def __init__(self, config: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._worker = ToldWorker(config, llm_client=None)
        self.agent_loop_workers = [self._worker]
        loop.run_until_complete(self._worker.start_verifier())

    def generate_sequences(self, prompts: Any) -> None:
        """Roll out and reward."""

        async def roll_out() -> None:
            await self._worker.generate_sequences(prompts)
            await asyncio.gather(*self._worker.background_tasks)

        self._loop.run_until_complete(roll_out())

    def ask(self, _: Sequence[Any], method: str, *arguments: Any) -> list[Any]:
        """Stands in for `calls.ask`."""
        return [self._loop.run_until_complete(getattr(self._worker, method)(*arguments))]


class OneProcessTrainer(SpeciaRLTrainer):
    """Our trainer, which starts no process. Not registered with veRL, which knows its base by name."""

    def _setup(self) -> None:
        self._init_tokenizer()
        self._init_dataloader()
        self._init_dump_executor()
        self._init_resource_pool_mgr()  # without the pools, which are Ray's
        self.ref_in_actor = False
        self.distillation_config = None
        self.actor_rollout_wg = OneWorkerGroup(self.config.actor_rollout_ref, "actor")
        if self.use_reference_policy:
            self.ref_policy_wg = OneWorkerGroup(self.config.actor_rollout_ref, "ref")
        self.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=[])
        servers = {"update_weights": lambda step: None, "sleep_replicas": lambda: None}
        self.checkpoint_manager = SimpleNamespace(**servers)
        self._load_checkpoint()


@contextmanager
def one_process(folder: Path) -> Iterator[None]:
    """A world of one for torch, with one thread as in a run: two on a busy machine spin for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        world = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        unused = {"MASTER_ADDR": "unused", "MASTER_PORT": "0", "REDIS_STORE_SERVER_HOST": "unused"}  # that veRL sets
        for name, value in (world | unused | {"DIST_INIT_METHOD": f"file://{folder}/meeting_point"}).items():
            patch.setenv(name, value)
        yield
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    torch.set_num_threads(threads)


def train(folder: Path, data: Path, *overrides: str) -> OneProcessRun:
    """Run to the end; overrides as for a whole run (`laptop_run.train`). Needs a world (`one_process`)."""
    folder.mkdir(parents=True, exist_ok=True)
    metrics, log = folder / "metrics.jsonl", folder / "log"
    log.touch()
    losses: list[LossCall] = []
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        patch.setenv("VERL_FILE_LOGGER_PATH", str(metrics))
        HeldQueue().install(patch)
        # The service of a run is an actor, and there is no Ray here: the worker judges in this process.
        patch.setattr(RunVerifier, "start", lambda verifier: verifier._settings.verifier)
        for mode, function in list(core_algos.POLICY_LOSS_REGISTRY.items()):
            patch.setitem(core_algos.POLICY_LOSS_REGISTRY, mode, _noted(mode, function, losses))
        config = _composed(folder, data, *overrides)
        trainer = OneProcessTrainer(config)
        trainer.init()
        loops = OneWorkerLoops(config, runner.get_loop())
        patch.setattr(calls, "ask", loops.ask)
        trainer.fit(loops)
    return OneProcessRun(LaptopRun.ended(folder, 0, metrics, log), losses)


def _composed(folder: Path, data: Path, *overrides: str) -> Any:
    """The configuration as veRL's entry point has it when the trainer is made."""
    words = command(folder, data, *overrides)[3:]
    config = compose_run(*(word for word in words if not word.startswith("hydra.")))
    auto_set_device(config)
    validate_config(config, need_reference_policy(config), need_critic(config))
    OmegaConf.resolve(config)
    return config


def _noted(mode: str, loss: Any, losses: list[LossCall]) -> Any:
    """The loss, which notes its calls."""

    def call(**kwargs: Any) -> Any:
        value, metrics = loss(**kwargs)
        tensors = {name: kwargs[name].detach().double().clone() for name in TENSORS}
        losses.append(LossCall(mode, float(value.detach()), **tensors))
        return value, metrics

    return call
