"""Loaded into the actor's process (``actor_rollout_ref.model.external_lib``): writes down what reaches the policy loss.

Every call of veRL's loss functions is passed on unchanged, and its tensors, its mode and its result are kept in a file
each, so that a test can compute the loss again from nothing but these and the paper's constants.
"""

import os
from pathlib import Path
from typing import Any

import torch
from verl.trainer.ppo import core_algos

FOLDER = "SPECIARL_TEST_LOSS_SPY"
"""Environment variable with the directory; without it nothing is spied on."""
TENSORS = ("old_log_prob", "log_prob", "advantages", "response_mask")


def spied(mode: str, loss: Any) -> Any:
    """The loss, which notes its calls. The reference model's process never computes one."""

    def call(**kwargs: Any) -> Any:
        folder = Path(os.environ[FOLDER])
        folder.mkdir(parents=True, exist_ok=True)
        value, metrics = loss(**kwargs)
        seen = {name: kwargs[name].detach().double().clone() for name in TENSORS}
        number = len(list(folder.glob("*.pt")))
        torch.save({"mode": mode, "loss": float(value), **seen}, folder / f"{number:04d}.pt")
        return value, metrics

    return call


if FOLDER in os.environ:
    for name, function in list(core_algos.POLICY_LOSS_REGISTRY.items()):
        core_algos.POLICY_LOSS_REGISTRY[name] = spied(name, function)
