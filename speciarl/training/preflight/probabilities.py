"""Probability check: refuses a reward on label probabilities together with a judge that gives none."""

from speciarl import reward
from speciarl.config import SpeciaRLConfig
from speciarl.errors import ConfigError
from speciarl.reward import GroupReward
from speciarl.verifier_server import VerifierConfig
from speciarl.verifier_server.judge.probe import EXACT_REMEDY
from speciarl.verifier_server.verifier import Verifier


def check_probabilities(settings: SpeciaRLConfig, group_reward: GroupReward, verifier: Verifier | None) -> None:
    """Raise ConfigError for a reward on probabilities with a judge that gives none.

    All verdicts would count as certain, and the run would train on another reward than it names. `verifier` is the one
    in use, started; None before that, when only its configuration can be checked.
    """
    if not reward.weighs_probabilities(group_reward):
        return
    if verifier.gives_probabilities if verifier is not None else _may_give(settings.verifier):
        return
    raise ConfigError(
        f"speciarl.reward.name={settings.reward.name}: this reward weighs the judge's probabilities, and judge "
        f"{settings.verifier.name!r} gives none; use a vLLM judge with speciarl.verifier.decoding=first_token "
        f"({EXACT_REMEDY}), or speciarl.reward.name=dynamic"
    )


def _may_give(config: VerifierConfig) -> bool:
    if config.service_url or config.kind == "taxonomy":
        return True
    first_token = config.decoding != "choice" and not config.thinking and config.pairs_per_request == 1
    return config.kind == "vllm" and first_token
