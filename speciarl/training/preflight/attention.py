"""Attention check: refuses an attention implementation that this installation lacks."""

from omegaconf import DictConfig

from speciarl import flash_attention
from speciarl.errors import ConfigError
from speciarl.hydra_support import resolvers


def check_attention(config: DictConfig) -> None:
    """Raise ConfigError for packing or flash_attention_2 where flash-attention is not installed."""
    if flash_attention.installed():
        return
    model = config.actor_rollout_ref.model
    if model.use_remove_padding:
        raise ConfigError(
            "actor_rollout_ref.model.use_remove_padding=True: sequences are packed for flash-attention, which is not "
            f"installed ({flash_attention.REMEDY}); leave it out, or set it to False"
        )
    # veRL's own default, which it asks transformers for if the configuration says nothing.
    asked = model.override_config.get("attn_implementation", "flash_attention_2")
    if asked == "flash_attention_2":
        raise ConfigError(
            "actor_rollout_ref.model.override_config.attn_implementation=flash_attention_2: flash-attention is not "
            f"installed ({flash_attention.REMEDY}); set it to sdpa"
        )


def attention_notice() -> str:
    """Notice, in one line, for a run on GPUs without flash-attention; empty for all others."""
    if flash_attention.installed() or resolvers.device() != "cuda":
        return ""
    return f"flash-attention is not installed, so {flash_attention.WITHOUT} ({flash_attention.REMEDY})"
