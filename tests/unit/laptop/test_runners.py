"""The fast forward passes equal the plain ones of stock Transformers."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from data_prep.emoji.concepts import load_concepts
from data_prep.emoji.views import IMAGE_PX
from speciarl.category import Category
from speciarl.laptop.judge.model import PROMPT_NAME, build_judge, build_judge_tokenizer
from speciarl.laptop.judge.pairs import PairSource
from speciarl.laptop.judge.runner import JudgeRunner
from speciarl.laptop.policy.model import build_policy, build_policy_tokenizer, save_processor
from speciarl.laptop.policy.runner import MAX_RESPONSE, PolicyRunner, patches, prompt_ids, response_ids
from speciarl.laptop.reference_grpo import GrpoSettings, advantages, binary, dynamic, graded
from speciarl.laptop.world import USER_TEXT, World
from speciarl.verdict import Pair
from speciarl.verifier_server.judge.prompt import load_prompt

_W, _A, _G, _L, _S = list(Category)[:5]


@pytest.fixture(scope="module")
def policy() -> PolicyRunner:
    torch.manual_seed(0)
    tokenizer = build_policy_tokenizer(World(load_concepts()).words)
    runner = PolicyRunner(build_policy(tokenizer), tokenizer)
    runner.model.train(False)
    return runner


def _pictures(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, IMAGE_PX, IMAGE_PX, 3), dtype=torch.uint8, generator=generator)


def test_branched_logits_equal_the_plain_forward_pass(policy: PolicyRunner, tmp_path: Path) -> None:
    save_processor(policy.tokenizer, tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    pictures = _pictures(2)
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": USER_TEXT}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    images = [Image.fromarray(picture.numpy()) for picture in pictures]
    inputs = processor(text=[text, text], images=images, return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == prompt_ids(policy.tokenizer)
    pixels = patches(pictures.numpy())
    torch.testing.assert_close(inputs["pixel_values"].reshape(pixels.shape), pixels)

    words = ("<think> clear exact</think><answer> dog face</answer>", "<answer> none</answer>")
    rows = [response_ids(policy.tokenizer, words[index % 2]) for index in range(4)]
    width = max(map(len, rows))
    responses = torch.tensor([row + [policy.pad] * (width - len(row)) for row in rows])
    with torch.no_grad():
        fast = policy.response_logits(pixels, responses)
        for index in range(4):
            prompt = inputs["input_ids"][index // 2]
            ids = torch.cat([prompt, responses[index]]).unsqueeze(0)
            types = (ids == policy.model.config.image_token_id).int()
            plain = policy.model(
                input_ids=ids,
                pixel_values=pixels[index // 2],
                image_grid_thw=inputs["image_grid_thw"][:1],
                mm_token_type_ids=types,
            ).logits[0, len(prompt) - 1 : -1]
            torch.testing.assert_close(fast[index], plain, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_vision_tower_through_the_cache(policy: PolicyRunner) -> None:
    responses = torch.randint(0, 200, (4, 5), generator=torch.Generator().manual_seed(2))
    policy.response_logits(patches(_pictures(2).numpy()), responses).sum().backward()
    weights = policy.model.model.visual.patch_embed.proj.weight
    assert weights.grad is not None
    assert float(weights.grad.abs().sum()) > 0
    policy.model.zero_grad()


def test_samples_repeat_under_a_seed_and_stop_after_the_end_token(policy: PolicyRunner) -> None:
    pixels = patches(_pictures(2).numpy())
    first, second = (policy.sample(pixels, 3, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape[0] == 6
    assert first.shape[1] <= MAX_RESPONSE
    for row in first.tolist():
        if policy.end in row:
            assert set(row[row.index(policy.end) + 1 :]) <= {policy.pad}


def test_pictures_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="56 x 56 RGB"):
        patches(torch.zeros((1, 28, 28, 3), dtype=torch.uint8).numpy())


def test_the_shared_beginning_changes_no_verdict_logit() -> None:
    torch.manual_seed(0)
    tokenizer = build_judge_tokenizer(PairSource(load_concepts()).words)
    model = build_judge(tokenizer)
    runner = JudgeRunner(model, tokenizer, load_prompt(PROMPT_NAME))
    pairs = [Pair("dog face", "dog face"), Pair("dog", "animals nature"), Pair("dog", ""), Pair("t rex", "x9 -z")]
    first = [tokenizer.encode(category.label)[0] for category in Category]
    with torch.no_grad():
        plain = [model(input_ids=torch.tensor([runner.prompt_ids(pair)])).logits[0, -1, first] for pair in pairs]
    assert runner.verdicts(pairs) == [Category(int(row.argmax())) for row in plain]


def test_group_rewards_of_the_reference_loop() -> None:
    assert dynamic([_S, _L, _W, None]) == [1.0, 0.0, 0.0, -1.0]
    assert dynamic([_W, _W]) == [0.0, 0.0]
    assert dynamic([_A, _W]) == [1.0, 0.0]
    assert dynamic([_L, _G]) == [1.0, 0.0]
    assert dynamic([Category.MORE_SPECIFIC, _S]) == [1.0, 1.0]
    assert binary([_S, _L, None]) == [1.0, 0.0, -1.0]
    assert graded([_S, _L, _G, _A, _W]) == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_advantages_are_centred_and_zero_without_spread() -> None:
    values = advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]))
    torch.testing.assert_close(values.sum(1), torch.zeros(2), atol=1e-5, rtol=0)
    assert values[1].abs().max() == 0


def test_the_rate_warms_up_and_decays_as_in_verls_cosine_schedule() -> None:
    from verl.utils.torch_functional import get_cosine_schedule_with_warmup

    settings = GrpoSettings(steps=20, lr=1e-3, warm_up=5, decay=True)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, settings.warm_up, settings.steps)
    factors = [schedule.lr_lambdas[0](step) for step in range(5, 20)]
    assert [settings.rate(step) for step in range(5, 20)] == pytest.approx([1e-3 * factor for factor in factors])
    assert GrpoSettings(lr=1e-3, warm_up=5).rate(30) == settings.rate(4) == 1e-3
