"""What the check changes in the recipe, all of it: sizes, paths, the judge, and what makes an effect visible."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from memory_plan import Plan

STEPS = 3
"""Two to be measured, and one in which the judge is killed."""
JUDGE = "check-judge"
"""The judge's name in the server, by which its process is found."""
LEARNING_RATE = 1e-3
"""Far above the recipe's, so that one update moves the adapter enough to be seen in the server."""
ONE_GPU = "one_gpu"


@dataclass(frozen=True)
class Setting:
    """What a run is made of."""

    policy: Path
    judge: Path | None
    """None: the taxonomy judges."""
    data: Path
    plan: Plan
    on_cpu: bool = False
    packed: bool = True
    """Whether flash-attention is there, without which sequences are padded and attention is torch's own."""


def judge_prompt(on_cpu: bool) -> str:
    """The judge prompt: the main recipe's, or a short one where a CPU has to read it."""
    return "compact" if on_cpu else "base"


def recipes(directory: Path, on_cpu: bool) -> str:
    """The recipes to start from: the one for a single GPU where this checkout has it."""
    if on_cpu:
        return "+recipe=[speciarl,laptop]"
    return f"+recipe=[speciarl,{ONE_GPU}]" if (directory / f"{ONE_GPU}.yaml").is_file() else "+recipe=speciarl"


def overrides(setting: Setting, run: Path, directory: Path) -> list[str]:
    """All Hydra words of a run. `directory` is that of the recipes."""
    return [
        recipes(directory, setting.on_cpu),
        *_sizes(setting),
        *_files(setting, run),
        *_visible(),
        *(_cpu() if setting.on_cpu else _gpu(setting)),
        *(_taxonomy(setting) if setting.judge is None else _judge(setting, setting.judge)),
    ]


def _sizes(setting: Setting) -> Iterator[str]:
    plan = setting.plan
    actor, rollout, ref = (f"actor_rollout_ref.{part}" for part in ("actor", "rollout", "ref"))
    yield f"data.train_batch_size={plan.images}"
    yield f"{actor}.ppo_mini_batch_size={plan.images // 2}"  # two updates a step, as the recipe has
    yield f"{rollout}.n={plan.rollouts}"
    yield f"data.max_prompt_length={plan.prompt_tokens}"
    yield f"data.max_response_length={plan.response_tokens}"
    yield f"{rollout}.max_model_len={plan.prompt_tokens + plan.response_tokens}"
    for part in (f"{actor}.use", f"{ref}.log_prob_use", f"{rollout}.log_prob_use"):
        yield f"{part}_dynamic_bsz=true"
    for part in (f"{actor}.ppo", f"{ref}.log_prob", f"{rollout}.log_prob"):
        yield f"{part}_max_token_len_per_gpu={plan.tokens_per_gpu}"
    yield f"trainer.total_training_steps={STEPS}"
    yield "trainer.total_epochs=1000"
    yield "trainer.n_gpus_per_node=1"
    yield "trainer.nnodes=1"
    yield f"{rollout}.tensor_model_parallel_size=1"


def _files(setting: Setting, run: Path) -> Iterator[str]:
    yield f"actor_rollout_ref.model.path={setting.policy}"
    yield f"data.train_files={setting.data}/train.parquet"
    yield f"data.val_files={setting.data}/train.parquet"  # never read: there is no validation
    yield "data.train_max_samples=-1"
    yield f"trainer.default_local_dir={run}"
    yield f"trainer.rollout_data_dir={run}/rollouts"
    yield f"hydra.run.dir={run}/hydra"
    yield "trainer.logger=[console,file]"
    yield "trainer.val_before_train=false"
    yield "trainer.test_freq=-1"
    yield "trainer.save_freq=-1"


def _visible() -> Iterator[str]:
    yield "actor_rollout_ref.rollout.calculate_log_probs=true"
    yield f"actor_rollout_ref.actor.optim.lr={LEARNING_RATE}"
    yield "actor_rollout_ref.actor.optim.lr_warmup_steps=0"
    yield "recipe/store=none"
    yield "++speciarl.verifier.cache_size=0"  # so that every answer costs a verdict
    yield "speciarl.training.samples_every=0"


def _gpu(setting: Setting) -> Iterator[str]:
    yield f"actor_rollout_ref.rollout.gpu_memory_utilization={setting.plan.rollout_share}"
    attention = "flash_attention_2" if setting.packed else "sdpa"
    yield f"actor_rollout_ref.model.use_remove_padding={str(setting.packed).lower()}"
    yield f"++actor_rollout_ref.model.override_config.attn_implementation={attention}"


def _cpu() -> Iterator[str]:
    """The laptop recipe trains a whole model; this is the main recipe's way."""
    yield "actor_rollout_ref.rollout.layered_summon=true"
    yield "actor_rollout_ref.model.lora_rank=8"
    yield "actor_rollout_ref.model.target_modules=all-linear"
    yield "actor_rollout_ref.model.exclude_modules='.*visual.*'"
    yield "actor_rollout_ref.model.enable_gradient_checkpointing=true"
    yield "actor_rollout_ref.rollout.load_format=safetensors"


def _taxonomy(setting: Setting) -> Iterator[str]:
    yield "recipe/verifier=taxonomy"
    yield f"speciarl.verifier.taxonomy={setting.data}/taxonomy.json"


def _judge(setting: Setting, model: Path) -> Iterator[str]:
    verifier = "speciarl.verifier"
    yield "recipe/verifier=laptop" if setting.on_cpu else "recipe/verifier=qwen3_4b"
    yield f"{verifier}.name={JUDGE}"
    yield f"{verifier}.model={model}"
    yield f"++{verifier}.served_model_name={JUDGE}"
    yield f"{verifier}.prompt={judge_prompt(setting.on_cpu)}"
    yield f"++{verifier}.decoding=first_token"  # a random judge can say a label, so nothing may fall back
    yield f"++{verifier}.probe=false"  # and its verdicts are chance, which golden pairs would find out
    yield f"++{verifier}.pool.replicas=1"
    yield f"++{verifier}.pool.max_model_len=4096"
    if not setting.on_cpu:
        yield f"++{verifier}.pool.gpus_per_replica=0"  # beside the trainer, which has reserved the only card
        yield f"++{verifier}.pool.gpu_memory_utilization={setting.plan.judge_share}"
