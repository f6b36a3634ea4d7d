"""Rollout dump: our columns in the files of ``trainer.rollout_data_dir``, beside veRL's (text, score, ground truth)."""

import json
from collections.abc import Sequence
from typing import Any

import transfer_queue as tq

from speciarl.config import RewardConfig


def without_padding(batch: Any) -> Any:
    """A batch without its padding rows, which carry a copy of another row's record."""
    real = [index for index, tag in enumerate(batch.tags) if not tag.get("is_padding", False)]
    return tq.KVBatchMeta(
        keys=[batch.keys[index] for index in real],
        tags=[batch.tags[index] for index in real],
        partition_id=batch.partition_id,
        fields=batch.fields,
        extra_info=batch.extra_info,
    )


def columns(keys: Sequence[str], partition_id: str = "train") -> dict[str, list[Any]]:
    """Columns of the trajectories, in the order of their keys.

    The ``reward_extra_info`` record, ``advantage`` (of the first token; GRPO gives all tokens of a response the same)
    and ``response_tokens``.
    """
    data = tq.kv_batch_get(
        keys=list(keys), partition_id=partition_id, select_fields=["extra_fields", "advantages", "responses"]
    )
    records = [fields["reward_extra_info"] for fields in data.pop("extra_fields").tolist()]
    return {name: [record[name] for record in records] for name in records[0]} | {
        "advantage": [float(row[0]) for row in data["advantages"].unbind()],
        "response_tokens": [len(row) for row in data["responses"].unbind()],
    }


def reward_settings(reward: RewardConfig, rollouts: int, validate: bool) -> str:
    """JSON text of what a row's reward was computed with, for `speciarl replay`: the same in every row of a file.

    `rollouts` is the number asked for per prompt, since one that failed or got no verdict leaves no row.
    """
    settings = reward.model_dump(mode="json", include={"name", "params", "noise", "quorum"})
    if validate:  # about true verdicts, and each answer is a result by itself
        settings |= {"noise": {"probability": 0.0}, "quorum": 1}
    return json.dumps(settings | {"rollouts": rollouts})
