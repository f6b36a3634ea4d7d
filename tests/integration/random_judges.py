"""Judges that were never trained, made for what they do to decoding."""

from pathlib import Path
from typing import Any

from speciarl.verifier_server.judge.label_tokens import local_first_tokens
from speciarl.verifier_server.judge.prompt import load_prompt


def make_undecided_judge(laptop_judge: str, directory: Path) -> str:
    """A random judge that leans towards the labels of `base` and `binary`, now more and now less, under the laptop
    judge's tokenizer, in which a label may also be begun with a piece of its first token."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    tokenizer: Any = AutoTokenizer.from_pretrained(laptop_judge)
    torch.manual_seed(56)  # with which both prompts get several answers, some meant and some not
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=1,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.normal_(0, 0.02)
        prompts = [load_prompt(name) for name in ("binary", "base")]
        for token in dict.fromkeys(token for one in prompts for token in local_first_tokens(laptop_judge, one, False)):
            model.lm_head.weight[token].normal_(0, 0.65)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


def make_blurting_judge(directory: Path) -> str:
    """A tiny random judge whose tokenizer begins every label with the same token, a space."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = (
        "{% for message in messages %}{{ message['role'] }} {{ message['content'] }}<|im_end|>{% endfor %}<|im_start|>"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    fast.save_pretrained(directory)
    return str(directory)
