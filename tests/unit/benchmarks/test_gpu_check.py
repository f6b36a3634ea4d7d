"""benchmarks/gpu: what the check makes up, plans, asks for and concludes. That it runs as a whole is seen by
`python benchmarks/gpu/check.py --scale tiny`."""

import functools
import io
import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import card
import check
import findings
import memory_plan
import models
import overrides
import pictures
import psutil
import pytest
import shapes
import table
import torch
import training_run
import vocabulary
import weights
from composed_run import compose_run
from omegaconf import DictConfig
from PIL import Image
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from speciarl import answer
from speciarl.category import LABELS, Category
from speciarl.config import load
from speciarl.hydra_support.recipe_source import recipe_directory
from speciarl.laptop import tokenizer as tok
from speciarl.taxonomy import Taxonomy
from speciarl.verdict import Pair
from speciarl.verifier_server.judge.prompt import load_prompt
from speciarl.verifier_server.pool.vllm_server import SUBREAPER

TINY_POLICY, TINY_JUDGE = shapes.POLICIES["tiny"], shapes.JUDGES["tiny"]


@functools.cache
def counted(name: str) -> int:
    return shapes.parameters((shapes.POLICIES | shapes.JUDGES)[name])


@pytest.mark.parametrize(("name", "published"), [("3b", 3_754_622_976), ("7b", 8_292_166_656), ("4b", 4_022_468_096)])
def test_made_up_models_have_the_published_sizes(name: str, published: int) -> None:
    assert counted(name) == published


def test_adapter_is_counted_as_peft_makes_it() -> None:
    from peft import LoraConfig, get_peft_model

    model = shapes.skeleton(shapes.build_config(TINY_POLICY, dict.fromkeys(tok.SPECIAL_TOKENS, 0)))
    wrapped = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", exclude_modules=".*visual.*"))
    trained = sum(weight.numel() for weight in wrapped.parameters() if weight.requires_grad)
    assert shapes.adapter_parameters(TINY_POLICY, 8) == trained


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny policy and a tiny judge."""
    folder = tmp_path_factory.mktemp("made")
    models.policy(folder / "policy", TINY_POLICY, 64, "cpu")
    models.judge(folder / "judge", TINY_JUDGE, overrides.judge_prompt(True), "cpu")
    return folder


def test_verl_takes_the_policy_as_a_model(made: Path) -> None:
    from verl.workers.config.model import HFModelConfig

    taken = HFModelConfig(path=str(made / "policy"))
    assert taken.architectures == ["Qwen2_5_VLForConditionalGeneration"]
    assert taken.get_processor() is not None


def test_policy_loads_without_a_missing_weight_and_every_id_decodes(made: Path) -> None:
    _, told = Qwen2_5_VLForConditionalGeneration.from_pretrained(made / "policy", output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(made / "policy")
    assert len(tokenizer) == TINY_POLICY.vocabulary
    assert all(token is not None for token in tokenizer.convert_ids_to_tokens(range(TINY_POLICY.vocabulary)))
    name = pictures.names()[-1]
    whole = tokenizer.convert_tokens_to_ids(vocabulary.answer_token(name))
    assert answer.parse(tokenizer.decode([300, whole, 301], skip_special_tokens=True)) == name


def test_policy_answers_and_ends_and_never_says_what_stands_for_an_image(made: Path) -> None:
    processor = AutoProcessor.from_pretrained(made / "policy")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(made / "policy", dtype=torch.float32)
    words = [{"type": "image"}, {"type": "text", "text": pictures.PROMPT.removeprefix("<image>")}]
    text = processor.apply_chat_template([{"role": "user", "content": words}], add_generation_prompt=True)
    image = Image.open(io.BytesIO(pictures.draw(pictures.leaves()[0], 84, 0)))
    inputs = processor(text=[text] * 32, images=[image] * 32, return_tensors="pt")
    torch.manual_seed(0)
    ids = model.generate(**inputs, do_sample=True, top_k=0, max_new_tokens=64)[:, inputs["input_ids"].shape[1] :]
    responses = processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
    answers = {answer.parse(response) for response in responses} - {None}
    assert sum(answer.parse(response) is not None for response in responses) > 16
    assert len(answers) > 3
    assert answers <= set(pictures.names())
    ended = (ids == processor.tokenizer.eos_token_id).any(dim=1)
    assert ended.sum() > 16
    vocabulary_ids = processor.tokenizer.get_vocab()
    images = torch.tensor([vocabulary_ids[token] for token in (tok.IMAGE_PAD, tok.VIDEO_PAD, tok.VISION_START)])
    assert not torch.isin(ids, images).any()


def test_judge_says_a_label_and_not_always_the_same(made: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(made / "judge")
    model, told = AutoModelForCausalLM.from_pretrained(
        made / "judge", dtype=torch.float32, output_loading_info=True
    )  # fmt: skip
    assert not told["missing_keys"]
    first = {tokenizer.encode(label)[0] for label in LABELS}
    assert len(first) == len(LABELS)
    prompt, said = load_prompt(overrides.judge_prompt(True)), Counter[int]()
    for truth, other in zip(pictures.names()[60:320:13], pictures.names()[300:40:-13], strict=False):
        chat = prompt.messages(Pair(truth, other))
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            shares = model(**ids).logits[0, -1].softmax(-1)
        assert sum(shares[token].item() for token in first) > 0.5
        said[int(shares.argmax())] += 1
    assert said.keys() <= first
    assert len(said) > 1


def test_a_finished_model_stays_and_one_of_other_sizes_is_made_anew(made: Path, tmp_path: Path) -> None:
    folder, shard = tmp_path / "judge", "model-00001-of-00001.safetensors"
    models.judge(folder, TINY_JUDGE, "base", "cpu")
    before = (folder / shard).stat()
    models.judge(folder, TINY_JUDGE, "base", "cpu")
    assert (folder / shard).stat().st_mtime_ns == before.st_mtime_ns
    models.judge(folder, replace(TINY_JUDGE, layers=1), "base", "cpu")
    assert (folder / shard).stat().st_size < before.st_size


def test_shards_hold_every_weight_once_and_no_more_than_asked() -> None:
    sizes = {"a": (10, 10), "b": (5,), "c": (100, 10), "d": (1,)}
    parts = list(weights.shards(sizes, most=250))
    assert [name for part in parts for name in part] == list(sizes)
    assert parts == [["a", "b"], ["c"], ["d"]]


def test_a_weight_is_drawn_the_same_again() -> None:
    leaning = weights.Leaning({}, {})
    one, two = (weights.draw("model.layers.0.mlp.up_proj.weight", (8, 8), TINY_POLICY, leaning) for _ in range(2))
    assert torch.equal(one, two)
    assert one.dtype == torch.bfloat16


def test_pictures_are_rows_that_the_preflight_check_accepts(tmp_path: Path) -> None:
    from speciarl.training.preflight.checks import check_parquet

    pictures.write(tmp_path, 8, 84)
    check_parquet(tmp_path / "train.parquet", "data.train_files", "images", "draw them again")
    tree = Taxonomy.load(tmp_path / "taxonomy.json")
    assert tree.judge(Pair("pale red ring", "red ring")) is Category.LESS_SPECIFIC
    assert tree.judge(Pair("pale red ring", "ring")) is Category.GENERIC
    assert tree.judge(Pair("pale red ring", "pale red disc")) is Category.WRONG


def sizes(policy: str, judge: bool = True) -> memory_plan.Weights:
    shape = shapes.POLICIES[policy]
    adapter = shapes.adapter_parameters(shape, check.ADAPTER_RANK)
    known = adapter, counted("4b") if judge else 0, shape.vocabulary, shape.hidden, shape.layers
    return memory_plan.Weights(counted(policy), *known)


@pytest.mark.parametrize(("card_gib", "policy", "judge"), [(79.6, "7b", True), (47.5, "3b", True), (39.4, "3b", False)])
def test_plan_stays_within_the_card(card_gib: float, policy: str, judge: bool) -> None:
    plan = memory_plan.plan(card_gib, sizes(policy, judge))
    assert plan.peak_gib <= card_gib * memory_plan.USABLE + 0.1
    shares = (plan.rollout_share + plan.judge_share) * card_gib
    assert shares + plan.trainer_gib <= card_gib * memory_plan.USABLE + 0.5
    weights_gib = 2 * counted(policy) / 2**30
    assert plan.rollout_share * card_gib > weights_gib + memory_plan.LEAST_CACHE_GIB
    assert plan.tokens_per_gpu >= plan.prompt_tokens + plan.response_tokens
    assert (plan.judge_share > 0) is judge


def test_larger_cards_take_more() -> None:
    plans = [memory_plan.plan(gib, sizes("3b")) for gib in (47.5, 79.6, 139.0)]
    assert [plan.images for plan in plans] == [16, 32, 32]
    assert plans[0].tokens_per_gpu < plans[1].tokens_per_gpu == memory_plan.MOST_TOKENS


@pytest.mark.parametrize(("card_gib", "policy"), [(79.6 / 2, "7b"), (23.6, "3b")])
def test_a_card_that_is_too_small_is_refused_with_what_is_needed(card_gib: float, policy: str) -> None:
    with pytest.raises(memory_plan.TooSmall, match=rf"needs \d+ GiB to generate, and the card has {card_gib:.0f}"):
        memory_plan.plan(card_gib, sizes(policy))


def composed(tmp_path: Path, judge: bool, on_cpu: bool, packed: bool, plan: memory_plan.Plan) -> DictConfig:
    setting = overrides.Setting(tmp_path, tmp_path / "judge" if judge else None, tmp_path, plan, on_cpu, packed)
    words = overrides.overrides(setting, tmp_path / "run", recipe_directory())
    return compose_run(*(word for word in words if not word.startswith("hydra.")))


@pytest.mark.parametrize("judge", [True, False], ids=["vllm", "taxonomy"])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_runs_on_a_card_compose_and_pass_verls_validation(tmp_path: Path, judge: bool, packed: bool) -> None:
    plan = memory_plan.plan(79.6, sizes("7b", judge))
    config = composed(tmp_path, judge, on_cpu=False, packed=packed, plan=plan)
    validate_config(config, need_reference_policy(config), need_critic(config))
    settings, main = load(config), config.actor_rollout_ref
    assert (settings.verifier.name == overrides.JUDGE) is judge
    assert settings.verifier.store is None
    assert (main.actor.strategy, main.model.lora_rank, config.trainer.n_gpus_per_node) == ("fsdp2", 64, 1)
    assert main.rollout.gpu_memory_utilization == plan.rollout_share
    assert main.model.use_remove_padding is packed
    if judge:
        assert settings.verifier.pool is not None
        assert settings.verifier.pool.gpus_per_replica == 0  # Ray has one card to give, and the trainer has it
        assert settings.verifier.pool.gpu_memory_utilization == plan.judge_share
    if not packed:
        assert main.model.override_config.attn_implementation == "sdpa"


def test_the_run_on_a_cpu_is_the_main_recipes_way_at_laptop_size(tmp_path: Path) -> None:
    config = composed(tmp_path, judge=True, on_cpu=True, packed=False, plan=memory_plan.TINY)
    validate_config(config, need_reference_policy(config), need_critic(config))
    main = config.actor_rollout_ref
    assert (main.actor.strategy, main.model.lora_rank, main.actor.use_dynamic_bsz) == ("fsdp2", 8, True)
    assert load(config).verifier.decoding == "first_token"


def test_the_recipe_for_one_gpu_is_taken_where_it_is(tmp_path: Path) -> None:
    assert overrides.recipes(tmp_path, on_cpu=False) == "+recipe=speciarl"
    (tmp_path / "one_gpu.yaml").touch()
    assert overrides.recipes(tmp_path, on_cpu=False) == "+recipe=[speciarl,one_gpu]"


STEP = {
    "timing_s/step": 40.0, "timing_s/gen": 20.0, "timing_s/update_actor": 10.0, "timing_s/own": 1.0,
    "perf/total_num_tokens": 5000, "perf/throughput": 125.0, "perf/max_memory_allocated_gb": 51.25,
    "response_length/mean": 10.0, "speciarl/failed_rollouts": 0.0, "speciarl/unscorable_rate": 0.0,
    "speciarl/verifier/judging_s": 4.0, "speciarl/verifier/wait_s": 0.5,
    "training/rollout_probs_diff_mean": 0.001, "training/rollout_probs_diff_max": 0.2,
    "training/rollout_actor_probs_pearson_corr": 0.999, "actor/kl_loss": 0.02, "rollout_corr/k3_kl": 0.0005,
}  # fmt: skip
COUNTERS = ("live", "prompt_tokens", "cached_tokens", "completion_tokens")


def steps(**changes: Any) -> dict[int, dict[str, Any]]:
    """Three steps with counters that run on: 80 verdicts each, of 700 tokens, 640 of them cached, and one more."""
    rows = {}
    for step in (1, 2, 3):
        totals = dict(zip(COUNTERS, (80 * step, 56000 * step, 51200 * step, 80 * step), strict=True))
        rows[step] = STEP | {f"speciarl/verifier/total/{name}": value for name, value in totals.items()} | changes
    return rows


def finished(**changes: Any) -> training_run.Run:
    given: dict[str, Any] = {
        "status": 0, "steps": steps(), "stored": {1: 100, 2: 100, 3: 100}, "seconds": 300.0, "peak_gib": 70.04,
        "killed": "process 7 at 12:00:00", "plan": {"update_gib": 54.6, "peak_gib": 72.7},
    }  # fmt: skip
    return training_run.Run(**(given | changes))


def test_table_has_the_figures_of_the_second_step() -> None:
    shown = table.figures(finished())
    assert list(shown)[:3] == ["`timing_s/step`, s", "`timing_s/gen`, s", "`timing_s/update_actor`, s"]
    assert shown["tokens/s, generated"] == "50"
    assert shown["tokens/s, update"] == "500"
    assert shown["verdicts of the judge"] == "80"
    assert shown["verdicts/s while any was awaited"] == "20.0"
    assert shown["tokens per verdict: prompt (cached) + reply"] == "700 (640) + 1.0"
    assert shown["trainer's peak, allocated, GiB"] == "51.2 (planned 54.6)"
    assert shown["card's peak, all processes, GiB"] == "70.0 (planned 72.7)"
    assert shown["`timing_s/step` with the judge killed, s"] == "40.00"


def test_page_is_dated_and_names_the_card_and_every_run() -> None:
    held = findings.findings(finished(), 3, 100, 2)
    columns = [table.Column("one", finished(), held), table.Column("other", finished(steps={}, status=2), held)]
    text = table.page("H100, 80 GiB", "torch 2.11.0", time.struct_time((2027, 1, 2, 0, 0, 0, 0, 0, 0)), columns, ["n"])
    assert text.startswith("# GPU check, 2027-01-02\n\n* H100, 80 GiB\n* torch 2.11.0\n* n\n")
    assert "| step 2 | one | other |" in text
    assert "| tokens/s, generated | 50 |  |" in text
    assert "## other" in text


def verdicts(run: training_run.Run, killed_after: int | None = 2) -> dict[str, str]:
    return {one.what: one.verdict for one in findings.findings(run, 3, 100, killed_after)}


def test_all_is_well_with_a_run_as_it_should_be() -> None:
    assert set(verdicts(finished()).values()) == {findings.GOOD}
    assert len(verdicts(finished())) == 5
    assert len(verdicts(finished(), killed_after=None)) == 4


@pytest.mark.parametrize(
    ("what", "changes", "verdict"),
    [
        ("run ended by itself", {"status": None}, findings.BAD),
        ("run ended by itself", {"steps": {1: STEP}}, findings.BAD),
        ("every rollout has its reward", {"stored": {1: 100, 2: 99, 3: 100}}, findings.BAD),
        ("every rollout has its reward", {"steps": steps(**{"speciarl/unscorable_rate": 0.01})}, findings.BAD),
        ("every rollout has its reward", {"steps": steps(**{"speciarl/failed_rollouts": 1.0})}, findings.BAD),
        ("server and trainer agree", {"steps": steps(**{"training/rollout_probs_diff_mean": 0.1})}, findings.BAD),
        ("server and trainer agree", {"steps": steps(**{"training/rollout_actor_probs_pearson_corr": math.nan})},
         findings.BAD),
        ("server and trainer agree", {"steps": {}}, findings.UNKNOWN),
        ("adapter synced, seen in the server", {"steps": steps(**{"rollout_corr/k3_kl": 0.019})}, findings.BAD),
        ("adapter synced, seen in the server", {"steps": steps(**{"actor/kl_loss": 1e-6})}, findings.UNKNOWN),
        ("judge killed in step 3", {"killed": ""}, findings.UNKNOWN),
        ("judge killed in step 3", {"status": 1, "stored": {1: 100, 2: 100}}, findings.BAD),
        ("judge killed in step 3", {"status": 2, "stored": {}, "said": "speciarl: no verdict for 600 s"},
         findings.GOOD),
    ],
)  # fmt: skip
def test_what_does_not_hold_is_found(what: str, changes: dict[str, Any], verdict: str) -> None:
    assert verdicts(finished(**changes))[what] == verdict


def test_a_run_is_kept_and_read_back(tmp_path: Path) -> None:
    assert training_run.Run.load(tmp_path) is None
    finished().keep(tmp_path)
    assert training_run.Run.load(tmp_path) == finished()


def test_steps_are_read_while_a_line_is_being_written(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert training_run.read_steps(file) == {}
    rows = [{"step": 0, "data": {"val-core/x": 1.0}}, {"step": 1, "data": STEP}]
    file.write_text("\n".join(map(json.dumps, rows)) + '\n{"step": 2, "data": {"timing_s/st')
    assert list(training_run.read_steps(file)) == [1]


def test_only_trajectories_with_a_reward_are_counted(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_text('{"score": 0.0}\n{"score": null}\n{"other": 1}\n')
    (tmp_path / "2.jsonl").write_text('{"score": 1.0}\n')
    assert training_run.count_trajectories(tmp_path) == {1: 1, 2: 1}


def test_the_runs_own_line_is_found_in_its_log() -> None:
    assert training_run.own_line("noise\nspeciarl: judge 'x': gone\nmore noise\n") == "speciarl: judge 'x': gone"
    assert training_run.own_line("Traceback\n") == ""


def test_a_card_is_read_from_what_nvidia_smi_says() -> None:
    found = card.parse("0", "NVIDIA H100 80GB HBM3, 81559, 9.0, 580.82.07")
    assert (found.name, round(found.memory_gib, 1), found.capability) == ("NVIDIA H100 80GB HBM3", 79.6, "9.0")
    assert card.place({"CUDA_VISIBLE_DEVICES": "3,1"}) == "3"
    assert card.place({"CUDA_VISIBLE_DEVICES": ""}) == ""
    assert card.place({}) == "0"


def test_without_a_gpu_it_says_in_one_line_what_it_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(card, "find", lambda: None)
    assert check.main(["--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("gpu-check: no GPU")
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_judge_that_is_killed_is_the_server_and_not_what_watches_over_it() -> None:
    stand_in = [sys.executable, "-c", "import time; time.sleep(60)", "vllm.entrypoints.cli.main", "judge-0"]
    with subprocess.Popen(
        [sys.executable, "-I", str(SUBREAPER), "1", *stand_in], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as watching:
        expires = time.monotonic() + 30
        while not psutil.Process(watching.pid).children():
            assert time.monotonic() < expires
            time.sleep(0.05)
        (server,) = psutil.Process(watching.pid).children()
        while str(SUBREAPER) in server.cmdline():  # until then it is a copy of its parent
            assert time.monotonic() < expires
            time.sleep(0.05)
        told = training_run._kill_judge(os.getpid(), "judge-0")
        assert told is not None
        assert told.startswith(f"process {server.pid} at ")
        assert watching.wait(30) == 128 + 9  # as its server ended
