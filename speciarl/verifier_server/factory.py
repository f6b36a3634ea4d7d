"""Verifier factory: builds the verifier that a configuration describes."""

from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.judge.taxonomy import TaxonomyVerifier
from speciarl.verifier_server.llm_verifier import LLMVerifier
from speciarl.verifier_server.remote_verifier import RemoteVerifier
from speciarl.verifier_server.verifier import Verifier


def build(config: VerifierConfig, service_key: str | None = None) -> Verifier:
    """The verifier a configuration describes, not started yet; raises ConfigError for one that cannot be
    built. `service_key` replaces the content of `api_key_file` where that file is not at hand."""
    if config.service_url:
        return RemoteVerifier(config, key=service_key)
    return TaxonomyVerifier(config) if config.kind == "taxonomy" else LLMVerifier(config)
