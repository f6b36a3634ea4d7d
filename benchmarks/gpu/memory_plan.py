"""What fits on a card: the sizes of the check's runs, and the memory that they are expected to take.

One card holds everything: the trainer, the rollout server beside it and the judge. While rollouts are generated the
server has its share and the trainer its weights; during the update the server sleeps.
"""

from dataclasses import dataclass

GIB = 2**30
USABLE = 0.92
"""Of a card's memory; the rest is CUDA's own, of three processes and more."""
MASTER_BYTES = 4
"""Per weight in the trainer, frozen ones included: the recipe's `model_dtype: fp32`."""
SERVED_BYTES = 2
"""Per weight in a vLLM server."""
ADAPTER_BYTES = 16
"""Per weight of the adapter: itself, its gradient and AdamW's two moments, all in float32."""
ENGINE_GIB = 3.0
"""What a vLLM server takes beside weights and cache: activations while it profiles, CUDA graphs."""
LEAST_CACHE_GIB = 2.0
"""Key-value cache below which a server is too slow to tell anything."""
LOGIT_BYTES = 4.6
"""Per token and entry of the vocabulary in the update: logits in bfloat16 and their gradient, a part in float32."""
MOST_ROLLOUT_SHARE = 0.6
MOST_TOKENS = 24576
"""Of one packed micro-batch, as in the recipe."""


class TooSmall(Exception):
    """The card cannot hold the run; the message is one line."""


@dataclass(frozen=True)
class Weights:
    """The models of a run by what decides their memory."""

    policy: int
    """Weights of the policy."""
    adapter: int
    """Weights of its adapter."""
    judge: int
    """Weights of the judge; 0 for the taxonomy."""
    vocabulary: int
    hidden: int
    layers: int


@dataclass(frozen=True)
class Plan:
    """Sizes of a run, and its expected memory in GiB."""

    images: int
    rollouts: int
    prompt_tokens: int
    response_tokens: int
    tokens_per_gpu: int
    rollout_share: float
    judge_share: float
    trainer_gib: float
    """Weights, adapter and optimiser."""
    update_gib: float
    """The trainer at its peak, packed micro-batch included. What torch reports as allocated."""
    peak_gib: float
    """Of the whole card: the larger of generating and updating."""


def token_bytes(weights: Weights) -> float:
    """Memory of one token in the update: its logits and, with gradient checkpointing, one hidden state a layer."""
    return LOGIT_BYTES * weights.vocabulary + 2 * weights.hidden * (weights.layers + 16)


def plan(card_gib: float, weights: Weights, rollouts: int = 10) -> Plan:
    """Sizes for one card. Raises TooSmall in one line."""
    usable = USABLE * card_gib
    trainer = (MASTER_BYTES * weights.policy + ADAPTER_BYTES * weights.adapter) / GIB
    served = SERVED_BYTES * weights.policy / GIB
    judge = 0.0
    if weights.judge:
        judge = SERVED_BYTES * weights.judge / GIB + ENGINE_GIB + LEAST_CACHE_GIB
    server = min(usable - trainer - judge, MOST_ROLLOUT_SHARE * card_gib)
    if server < served + ENGINE_GIB + LEAST_CACHE_GIB:
        needed = trainer + judge + served + ENGINE_GIB + LEAST_CACHE_GIB
        raise TooSmall(f"it needs {needed / USABLE:.0f} GiB to generate, and the card has {card_gib:.0f}")
    prompt, response = 1024, 1024
    images = 32 if card_gib >= 70 else 16 if card_gib >= 40 else 8
    room = (usable - trainer - judge) * GIB / token_bytes(weights)
    tokens = min(int(room * 0.8) // 1024 * 1024, MOST_TOKENS)  # a fifth for what PyTorch keeps and does not use
    if tokens < prompt + response:
        raise TooSmall(f"an update of one rollout does not fit beside the weights on {card_gib:.0f} GiB")
    update = trainer + tokens * token_bytes(weights) / GIB
    return Plan(
        images=images,
        rollouts=rollouts,
        prompt_tokens=prompt,
        response_tokens=response,
        tokens_per_gpu=tokens,
        rollout_share=round(server / card_gib - 0.005, 2),
        judge_share=round(judge / card_gib + 0.005, 2) if judge else 0.0,
        trainer_gib=trainer,
        update_gib=update,
        peak_gib=judge + max(trainer + server, update),
    )


TINY = Plan(4, 4, 512, 64, 4096, 0.0, 0.0, 0.0, 0.0, 0.0)
"""For a machine without a GPU: nothing is planned there, and the sizes are what two cores can do."""
