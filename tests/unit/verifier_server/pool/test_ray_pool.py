"""What a pool of replicas refuses before Ray comes into play. The rest runs against real Ray and vLLM."""

import subprocess
import sys
from pathlib import Path

import pytest

from speciarl.errors import ConfigError
from speciarl.verifier_server import build, parse_config
from speciarl.verifier_server.pool.ray_pool import JudgePool, refuse_clashing_labels


def test_a_judge_without_a_pool(tmp_path: Path) -> None:
    config = parse_config({"model": "m", "endpoints": ["http://localhost:8000"]})
    with pytest.raises(ConfigError, match="has no `pool` to start"):
        JudgePool(config, tmp_path)


def test_stopping_a_pool_that_never_ran(tmp_path: Path) -> None:
    pool = JudgePool(parse_config({"model": "m", "pool": {}}), tmp_path)
    pool.stop()
    assert pool.config.endpoints == ()
    with pytest.raises(ConfigError, match="start its pool first"):
        build(pool.config)


def test_judges_that_are_not_at_hand_are_left_to_the_probe() -> None:
    refuse_clashing_labels(parse_config({"model": "org/judge", "pool": {}, "decoding": "first_token"}))


def test_a_judge_behind_urls_needs_neither_ray_nor_torch() -> None:
    program = (
        "import sys, speciarl.verifier_server, speciarl.verifier_server.pool.ray_pool, speciarl.reward.dynamic\n"
        "print([name for name in ('ray', 'torch', 'vllm', 'transformers', 'verl') if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
