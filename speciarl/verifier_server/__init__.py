"""Verifier: judges answers; prompts, HTTP client, cache, verdict store, start-up probe and managed vLLM replicas."""

from speciarl.errors import VerifierStartError
from speciarl.verifier_server.config import PoolConfig, VerifierConfig, parse_config
from speciarl.verifier_server.factory import build
from speciarl.verifier_server.verifier import Verifier

__all__ = ["PoolConfig", "Verifier", "VerifierConfig", "VerifierStartError", "build", "parse_config"]
