"""Golden composition: every recipe and option composes, passes veRL's own validation and sets no key veRL ignores."""

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from composed_run import composed
from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config

from data_prep.compose import settings
from data_prep.config import BuildConfig
from speciarl import reward
from speciarl.config import RewardConfig, TrainingConfig, load
from speciarl.cpu import stack
from speciarl.errors import DataError
from speciarl.hydra_support.recipe_source import recipe_directory
from speciarl.training.preflight.batch_sizes import TOKEN_BUDGETS, check_batch_sizes
from speciarl.training.preflight.checks import check_parquet
from speciarl.training.preflight.deadlines import check_deadlines

ROOT = recipe_directory()  # not `import recipe`: TransferQueue's wheel ships a package of that name
OPTIONS = {
    group: sorted(path.stem for path in (ROOT / group).glob("*.yaml"))
    for group in sorted(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("_"))
}
RECIPES = {"speciarl": "+recipe=speciarl", "laptop": "+recipe=[speciarl,laptop]"}
ONE_GPU = "+recipe=[speciarl,one_gpu]"
ADDRESS = {
    ("verifier", name): ["speciarl.verifier.model=m", "speciarl.verifier.endpoints=[http://localhost:8000/v1]"]
    for name in ("openai", "openai_many", "vllm")
} | {
    ("verifier", "gemini"): ["speciarl.verifier.model=m", "speciarl.verifier.api_key_file=key"],
    ("verifier", "service"): [
        "speciarl.verifier.name=service",
        "speciarl.verifier.service_url=http://localhost:8100",
    ],
    ("store", "redis"): ["speciarl.verifier.store.url=redis://localhost:6379/0"],
}

ADDED_KEYS = {
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class": "read by main_ppo's TaskRunnerV1",
    "actor_rollout_ref.actor.checkpoint.save_lora_only": "field of veRL's CheckpointConfig",
    "actor_rollout_ref.rollout.enable_sleep_mode": "field of veRL's RolloutConfig",
    "actor_rollout_ref.rollout.engine_kwargs.vllm.distributed_executor_backend": "passed on to vLLM",
    "actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes": "passed on to vLLM",
    "actor_rollout_ref.rollout.engine_kwargs.vllm.limit_mm_per_prompt.image": "passed on to vLLM",
    "actor_rollout_ref.rollout.engine_kwargs.vllm.limit_mm_per_prompt.video": "passed on to vLLM",
    "actor_rollout_ref.model.override_config.attn_implementation": "passed on to transformers",
    "actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype": "field of veRL's FSDPEngineConfig",
    "actor_rollout_ref.actor.fsdp_config.mixed_precision.reduce_dtype": "field of veRL's FSDPEngineConfig",
    "actor_rollout_ref.actor.fsdp_config.mixed_precision.buffer_dtype": "field of veRL's FSDPEngineConfig",
    "actor_rollout_ref.ref.fsdp_config.mixed_precision.param_dtype": "field of veRL's FSDPEngineConfig",
    "actor_rollout_ref.ref.fsdp_config.mixed_precision.reduce_dtype": "field of veRL's FSDPEngineConfig",
    "actor_rollout_ref.ref.fsdp_config.mixed_precision.buffer_dtype": "field of veRL's FSDPEngineConfig",
    "ray_kwargs.ray_init.num_gpus": "passed on to ray.init",
    "ray_kwargs.ray_init.include_dashboard": "passed on to ray.init",
    "ray_kwargs.ray_init.object_store_memory": "passed on to ray.init",
}
"""Keys of ours that veRL's YAML does not list but that veRL, vLLM, transformers or Ray reads."""

IGNORED_KEYS = ("reward_model", "custom_reward_function", "sandbox_fusion")
"""Top-level keys of veRL's past that still compose and that nobody reads."""


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for name, child in node.items():
            yield from leaves(child, f"{path}.{name}" if path else name)
    else:
        yield path, node


def plain(config: DictConfig) -> dict[str, Any]:
    return dict(leaves(OmegaConf.to_container(config, resolve=False)))


def variants() -> list[tuple[str, ...]]:
    lines = [(override,) for override in (*RECIPES.values(), ONE_GPU)]
    lines += [
        (ONE_GPU, f"recipe/verifier={name}", *ADDRESS.get(("verifier", name), [])) for name in ("vllm", "taxonomy")
    ]
    for (group, names), override in itertools.product(OPTIONS.items(), RECIPES.values()):
        if group == "data" and override == RECIPES["laptop"]:
            continue  # they differ in paths alone, and each composition costs the suite a second
        lines += [(override, f"recipe/{group}={name}", *ADDRESS.get((group, name), [])) for name in names]
    return lines


def paper_runs() -> list[tuple[str, ...]]:
    """The overrides of every command line in docs/paper_runs.md."""
    page = (Path(__file__).parents[3] / "docs" / "paper_runs.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| .* \| `(python -m verl[^`]*)` \|$", page, re.MULTILINE)
    assert len(lines) == page.count("python -m verl"), "a command line of docs/paper_runs.md stands outside a table row"
    return [tuple(shlex.split(line.removeprefix("python -m verl.trainer.main_ppo "))) for line in lines]


LINES = list(dict.fromkeys([*variants(), *paper_runs()]))


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_composes_and_passes_verls_validation(line: tuple[str, ...]) -> None:
    config = composed(*line)
    validate_config(config, need_reference_policy(config), need_critic(config))
    settings = load(config)
    option = next((word.split("=")[1] for word in line if word.startswith("recipe/verifier=")), None)
    if option is not None:
        assert settings.verifier.name == option


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_deadlines_fit_each_other(line: tuple[str, ...]) -> None:
    config = composed(*line)
    check_deadlines(load(config), str(config.trainer.v1.trainer_mode))


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_sets_no_key_that_verl_ignores(line: tuple[str, ...]) -> None:
    base, ours = plain(composed()), plain(composed(*line))
    for path in ours:
        if path in base or path.split(".")[0] == "speciarl":
            continue
        assert path in ADDED_KEYS, f"{path} is not in veRL's configuration"
    changed = {path for path, value in ours.items() if path in base and base[path] != value}
    assert not [path for path in changed if path.split(".")[0] in IGNORED_KEYS]


@pytest.mark.parametrize("line", paper_runs(), ids=" ".join)
def test_a_run_of_the_paper_fills_its_batches(line: tuple[str, ...]) -> None:
    config = composed(*line)
    data = config.data
    if data.train_max_samples > 0:
        assert data.train_max_samples >= data.train_batch_size  # veRL drops what does not fill a batch
    assert data.train_batch_size % config.actor_rollout_ref.actor.ppo_mini_batch_size == 0
    check_batch_sizes(config)


def test_the_papers_runs_are_all_there() -> None:
    runs = [composed(*line) for line in paper_runs()]

    def values(path: str) -> set[Any]:
        return {OmegaConf.select(config, path) for config in runs}

    assert values("actor_rollout_ref.rollout.n") == {5, 10, 15}
    assert values("data.train_max_samples") == {128, 1024, 2048, 3000, -1}
    assert values("data.val_files") == {"data/cub200/test.parquet"}  # in other domains' runs too
    assert values("data.val_max_samples") == {600}
    sizes = {(config.data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size) for config in runs}
    assert sizes == {(256, 128), (128, 128), (512, 128)}
    rates = {(config.actor_rollout_ref.actor.optim.lr, config.data.train_batch_size) for config in runs}
    assert rates == {(3e-5, 256), (3e-5, 128), (3e-6, 512)}
    noisy = [config for config in runs if config.speciarl.reward.noise.probability]
    assert [updates(config) for config in noisy] == [60 * 2] * 3
    assert {updates(config) for config in runs if config.data.train_max_samples == 128} == {15}
    assert values("speciarl.reward.noise.probability") == {0, 0.05, 0.1, 0.25}
    assert values("speciarl.reward.name") == {
        "dynamic", "dynamic_single", "binary", "graded_1", "graded_2", "graded_3",
    }  # fmt: skip
    methods = {(config.speciarl.algorithm, config.speciarl.reward.name) for config in runs}
    assert methods >= set(itertools.product(("grpo", "dr_grpo", "dapo", "dapo_filtered"), ("binary", "dynamic")))
    files = {Path(config.data.train_files).parent.name for config in runs}
    assert files == {"cub200", "cub200_paper", "aircraft", "flowers", "food", "pets", "cars", "mix"}


def updates(config: DictConfig) -> int:
    """Of the policy in a whole run."""
    data, actor = config.data, config.actor_rollout_ref.actor
    steps = data.train_max_samples // data.train_batch_size * config.trainer.total_epochs
    return int(steps * data.train_batch_size // actor.ppo_mini_batch_size)


def test_every_build_of_the_papers_data_is_one_that_a_run_reads() -> None:
    page = (Path(__file__).parents[3] / "docs" / "paper_runs.md").read_text(encoding="utf-8")
    builds = [
        settings(shlex.split(line)[4:]) for line in re.findall(r"^    (python -m data_prep build .*)$", page, re.M)
    ]
    trained_on = {Path(composed(*line).data.train_files).parent for line in paper_runs()}
    assert {build.out for build in builds} == trained_on
    papers = next(build for build in builds if build.out.name == "cub200_paper")
    assert isinstance(papers, BuildConfig)
    assert (papers.seed, papers.subset.count, papers.subset.draw) == (42, 3000, "python")


def test_the_algorithms() -> None:
    """What each sets, with the paper's values; that they act is seen in tests/integration/test_losses.py."""
    runs = {name: composed("+recipe=speciarl", f"recipe/algorithm={name}") for name in OPTIONS["algorithm"]}
    actors = {name: config.actor_rollout_ref.actor for name, config in runs.items()}
    assert {name: config.speciarl.algorithm for name, config in runs.items()} == {name: name for name in runs}
    assert {name for name, config in runs.items() if config.algorithm.norm_adv_by_std_in_grpo} == set(runs) - {
        "dr_grpo"
    }
    assert {name for name, actor in actors.items() if actor.use_kl_loss} == {"grpo"}
    assert (actors["dr_grpo"].loss_agg_mode, actors["dr_grpo"].loss_scale_factor) == ("seq-mean-token-sum-norm", 2048)
    for name in ("dapo", "dapo_filtered"):
        actor, overlong = actors[name], load(runs[name]).reward.overlong
        assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.clip_ratio_c) == (0.2, 0.28, 10)
        assert (actor.loss_agg_mode, actor.use_dynamic_bsz) == ("token-mean", True)
        assert overlong is not None
        assert overlong.buffer_share * runs[name].data.max_response_length == 512
        assert overlong.penalty == 1
        rollout = runs[name].actor_rollout_ref.rollout
        assert (actor.ppo_max_token_len_per_gpu, rollout.log_prob_max_token_len_per_gpu) == (4096, 4096)
        assert rollout.log_prob_use_dynamic_bsz
    filtered = runs["dapo_filtered"]
    assert filtered.algorithm.filter_groups.enable
    assert filtered.algorithm.filter_groups.metric == "group_reward"
    assert filtered.algorithm.filter_groups.max_inflight_gen_batches * filtered.data.train_batch_size == 768
    assert load(filtered).training.max_gen_batches * filtered.data.train_batch_size == 10 * 768
    assert not runs["dapo"].algorithm.filter_groups.enable
    assert actors["gspo"].policy_loss.loss_mode == "gspo"
    assert {name for name, config in runs.items() if load(config).reward.overlong} == {"dapo", "dapo_filtered"}


def test_the_rewards() -> None:
    for name in OPTIONS["reward"]:
        settings = load(composed("+recipe=speciarl", f"recipe/reward={name}")).reward
        assert settings.name == name
        assert callable(reward.load(settings.name, settings.params))
    assert set(OPTIONS["reward"]) == set(reward.NAMES)


def test_the_papers_main_run() -> None:
    config = composed("+recipe=speciarl")
    actor, rollout, model = (config.actor_rollout_ref[part] for part in ("actor", "rollout", "model"))
    assert model.path == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert (model.lora_rank, model.lora_alpha, model.target_modules) == (64, 32, "all-linear")
    assert "visual" in model.exclude_modules
    assert model.enable_gradient_checkpointing
    assert config.algorithm.adv_estimator == "grpo"
    assert rollout.n == 10
    assert actor.optim.lr == 3e-5
    assert (config.data.train_batch_size, actor.ppo_mini_batch_size) == (256, 128)
    assert (actor.use_kl_loss, actor.kl_loss_coef, actor.kl_loss_type) == (True, 0.01, "low_var_kl")
    assert not config.algorithm.use_kl_in_reward
    assert actor.entropy_coeff == 0
    assert (config.data.max_prompt_length, config.data.max_response_length) == (2048, 2048)
    assert actor.fsdp_config.model_dtype == "fp32"  # the adapter's too
    assert OmegaConf.select(actor, "fsdp_config.mixed_precision") is None  # veRL then computes in bf16
    assert rollout.dtype == "bfloat16"
    assert (rollout.name, rollout.gpu_memory_utilization) == ("vllm", 0.6)
    assert (config.trainer.total_epochs, config.trainer.test_freq, config.trainer.n_gpus_per_node) == (15, 5, 4)
    assert (config.data.train_max_samples, config.data.seed) == (3000, 42)
    judge = config.speciarl.verifier
    assert judge.model == "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8"
    assert judge.pool.replicas * judge.pool.gpus_per_replica == 2
    assert config.speciarl.reward.name == "dynamic"


def test_the_main_run_is_cut_to_its_gpus() -> None:
    config = composed("+recipe=speciarl")
    actor, ref, rollout = (config.actor_rollout_ref[part] for part in ("actor", "ref", "rollout"))
    assert actor.strategy == ref.strategy == "fsdp2"
    assert actor.use_dynamic_bsz
    assert rollout.log_prob_use_dynamic_bsz
    assert ref.log_prob_use_dynamic_bsz
    assert [OmegaConf.select(config, key) for key in TOKEN_BUDGETS] == [24_576] * 3
    assert (rollout.tensor_model_parallel_size, config.trainer.n_gpus_per_node) == (1, 4)  # so four servers
    assert (rollout.max_model_len, rollout.max_num_seqs) == (4096, 1024)
    assert rollout.max_num_batched_tokens >= rollout.max_num_seqs  # vLLM wants that
    assert config.data.val_batch_size == 1024
    assert rollout.layered_summon
    assert "dummy" not in rollout.load_format  # veRL asks that for layered_summon: servers have the base already
    assert omega_conf_to_dataclass(actor.checkpoint).save_lora_only
    longer = composed("+recipe=speciarl", "data.max_response_length=4096")
    assert longer.actor_rollout_ref.rollout.max_model_len == 6144


def test_one_gpu_is_the_main_run_on_fewer_tokens_and_a_shared_card() -> None:
    paper, ours = plain(composed("+recipe=speciarl")), plain(composed(ONE_GPU))
    changed = {path: ours.get(path) for path in {*paper, *ours} if paper.get(path) != ours.get(path)}
    judge = {path: value for path, value in changed.items() if path.startswith("speciarl.verifier.")}
    assert {path: value for path, value in changed.items() if path not in judge} == {
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 16_384,
        "actor_rollout_ref.actor.fsdp_config.param_offload": True,
        "actor_rollout_ref.actor.fsdp_config.optimizer_offload": True,
        "actor_rollout_ref.rollout.gpu_memory_utilization": 0.5,
        "actor_rollout_ref.rollout.max_num_seqs": 256,
        "trainer.n_gpus_per_node": 1,
        "trainer.experiment_name": "one_gpu",
    }
    pool = load(composed(ONE_GPU)).verifier.pool
    assert pool is not None
    assert (pool.replicas, pool.gpus_per_replica) == (1, 0)
    assert pool.gpu_memory_utilization is not None
    assert pool.gpu_memory_utilization + ours["actor_rollout_ref.rollout.gpu_memory_utilization"] < 1
    assert load(composed(ONE_GPU, "recipe/verifier=taxonomy")).verifier.pool is None


@pytest.mark.parametrize("on_cpu", [True, False])
def test_two_laptop_runs_fit_on_one_gpu(monkeypatch: pytest.MonkeyPatch, on_cpu: bool) -> None:
    monkeypatch.setattr(stack, "active", lambda: on_cpu)
    config = composed("+recipe=[speciarl,laptop]")
    pool, rollout = load(config).verifier.pool, config.actor_rollout_ref.rollout
    assert pool is not None
    assert pool.gpus_per_replica == 0  # veRL reserves the whole GPU
    assert pool.gpu_memory_utilization == (None if on_cpu else 0.1)
    assert rollout.gpu_memory_utilization == 0.1
    # vLLM then measures no memory, which it cannot while another server starts on the same GPU.
    assert pool.engine_args["kv_cache_memory_bytes"] == rollout.engine_kwargs.vllm.kv_cache_memory_bytes == 2**30
    assert config.trainer.n_gpus_per_node == 1
    assert config.ray_kwargs.ray_init.num_gpus == (2 if on_cpu else None)


def test_laptop_runs_keep_their_micro_batches() -> None:
    for algorithm in OPTIONS["algorithm"]:
        actor = composed("+recipe=[speciarl,laptop]", f"recipe/algorithm={algorithm}").actor_rollout_ref.actor
        assert (actor.use_dynamic_bsz, actor.ppo_micro_batch_size_per_gpu) == (False, 160)


OFFICIAL = "`python -m data_prep fetch {0}` and `python -m data_prep build dataset={0}`"
COOP = (
    "`python -m data_prep fetch {0}` and `python -m data_prep build dataset={0}_coop` (CoOp's split file in place, "
    "docs/datasets.md) or `dataset={0}` (official split)"
)
MIXED = (
    "`python -m data_prep build dataset={0}_coop` (CoOp's split files in place, docs/datasets.md) or `dataset={0}` "
    "(official splits) once the six datasets are fetched (docs/data.md)"
)
DATA = {
    # option: (images that veRL draws at random from the file, how the file is built)
    "cub200": (3000, OFFICIAL),
    "aircraft": (3000, OFFICIAL),
    "flowers": (3000, COOP),
    "food": (3000, COOP),
    "pets": (3000, COOP),
    "cars": (3000, OFFICIAL),
    "mix": (-1, MIXED),
    "emoji": (-1, "`python -m data_prep build dataset=emoji`"),
}


def test_every_data_option_is_listed_here() -> None:
    assert sorted(DATA) == OPTIONS["data"]


@pytest.mark.parametrize("name", DATA)
def test_data_options_point_at_what_the_builder_writes(name: str) -> None:
    config = composed("+recipe=speciarl", f"recipe/data={name}")
    images, how = DATA[name]
    # Every run of the paper validates on CUB, so the other domains' files are not enough.
    validated, answers, also = ("cub200", 600, "; it validates on CUB-200-2011, built likewise (dataset=cub200)")
    if name in ("cub200", "emoji"):
        validated, answers, also = name, 600 if name == "cub200" else -1, ""
    assert (config.data.train_files, config.data.val_files) == (
        f"data/{name}/train.parquet",
        f"data/{validated}/test.parquet",
    )
    assert (config.data.image_key, config.data.train_max_samples) == ("images", images)
    assert config.data.val_max_samples == answers
    assert config.data.seed == 42
    assert config.data.shuffle  # else veRL would take the first rows, which are those of the first classes
    assert load(config).data_hint == f"build it with {how.format(name)}{also}"
    for dataset in re.findall(r"dataset=(\w+)", how.format(name)):
        built = settings([f"dataset={dataset}"])
        assert str(built.out) == f"data/{name}"
        if isinstance(built, BuildConfig):
            assert built.files == ["train", "test"]


def test_a_missing_data_file_is_answered_with_the_command(tmp_path: Path) -> None:
    hint = load(composed("+recipe=speciarl", "recipe/data=food")).data_hint
    with pytest.raises(DataError) as caught:
        check_parquet(tmp_path / "train.parquet", "data.train_files", "images", hint)
    assert str(caught.value) == (
        f"data.train_files: {tmp_path}/train.parquet does not exist; "
        f"build it with {COOP.format('food')}; it validates on CUB-200-2011, built likewise (dataset=cub200)"
    )


def test_an_option_on_the_command_line_replaces_the_recipes() -> None:
    judge = composed("+recipe=[speciarl,laptop]", "recipe/verifier=taxonomy").speciarl.verifier
    assert (judge.kind, "pool" in judge) == ("taxonomy", False)


def test_every_key_of_ours_but_the_judges_can_be_set_without_a_plus() -> None:
    node = composed("+recipe=speciarl").speciarl
    assert set(TrainingConfig.model_fields) - set(node.training) == set()
    assert set(RewardConfig.model_fields) - set(node.reward) == {"params", "overlong"}  # of some rewards and algorithms


def test_laptop_goes_after_speciarl() -> None:
    from hydra.errors import ConfigCompositionException

    with pytest.raises(ConfigCompositionException, match="recipe/laptop"):
        composed("+recipe=[laptop,speciarl]")


def test_unknown_recipe_and_option_list_the_known_ones() -> None:
    from hydra.errors import MissingConfigException

    with pytest.raises(MissingConfigException, match="speciarl"):
        composed("+recipe=typo")
    with pytest.raises(MissingConfigException, match="qwen3_30b_a3b"):
        composed("+recipe=speciarl", "recipe/verifier=typo")
