"""Keys of answers: hashes of all that an answer depends on, and of nothing else."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEEDS_PER_QUESTION = 65_536
"""Distance of the base seeds of two questions at least; so no two answers share a seed."""


def content_id(*parts: bytes) -> bytes:
    """Hash (16 bytes) of some byte strings; where one ends and the next begins makes a difference."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def setup_id(setup: Mapping[str, Any]) -> str:
    """Hash (32 hex digits) of a set-up: model, sampling and engine. The order of its keys makes no difference."""
    return content_id(json.dumps(setup, sort_keys=True, ensure_ascii=False).encode()).hex()


def answer_id(setup: str, prompt: bytes, images: bytes, seed: int | None) -> str:
    """Key (32 hex digits) of one answer: set-up, prompt text, image bytes and its own seed."""
    return content_id(setup.encode(), prompt, images, b"" if seed is None else seed.to_bytes(8, "big")).hex()


def base_seed(seed: int, prompt: bytes, images: bytes) -> int:
    """Seed of the first answer to a question, below 2**62; answer i has this plus i.

    Drawn from the question itself, so that it depends on no row number. vLLM gives the answers of one request the seeds
    s, s + 1, … (vllm/v1/engine/parallel_sampling.py), hence the distance.
    """
    drawn = int.from_bytes(content_id(str(seed).encode(), prompt, images)[:8], "big") >> 18
    return drawn * SEEDS_PER_QUESTION
