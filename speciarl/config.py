"""Run configuration: the ``speciarl:`` node of veRL's config, validated at start."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from speciarl.errors import ConfigError
from speciarl.reward.noise import Noise
from speciarl.reward.overlong import Overlong
from speciarl.utils import wrong_keys
from speciarl.verifier_server.config import VerifierConfig


class RewardConfig(BaseModel):
    """Settings of the reward: how verdicts become rewards, and how many failures a run may bear."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "dynamic"
    """A reward of ours by name, or an import path ``package.module:function`` to a pure function on a group."""
    params: dict[str, Any] = {}
    """Parameters of that function: its keyword-only arguments, checked against their annotations."""
    noise: Noise = Noise()
    """Simulation of a less reliable verifier: verdicts of training moved by one rung before the reward sees them."""
    overlong: Overlong | None = None
    """Penalty for responses near the length limit, added to the reward of training rollouts; None for none."""
    quorum: int = Field(default=2, ge=1)
    """Fewest scored rollouts (unparsable ones included) a training group needs; smaller groups are replaced, or with
    ``late_verdicts`` left out of the batch."""
    group_deadline_s: float = Field(default=3600.0, gt=0)
    """Seconds from when a group is sent to a worker to its last verdict, time in the rollout servers' queue included; a
    rollout that takes longer is cancelled."""
    max_unscorable_rate: float = Field(default=0.2, gt=0, le=1)
    """Share of a step's rollouts that may go unscored before the run saves a checkpoint and stops."""
    outage_deadline_s: float = Field(default=1800.0, gt=0)
    """Seconds without a single verdict but known ones, while verdicts are asked for, before the run saves and stops. A
    judge of the run's own must be able to come back within it: docs/failures.md."""


class TrainingConfig(BaseModel):
    """Settings that our trainer adds to veRL's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    poll_interval_s: float = Field(default=2.0, gt=0)
    """Seconds between two polls for finished groups. veRL's fixed value is 2 s; small models gain from less."""
    seed: int | None = None
    """Seed of every rollout's sampling, so that a run repeats its rollouts and a resumed one those of the step it lost.
    None: the rollout servers draw as they like, which costs them less where many sequences are sampled at once."""
    late_verdicts: bool = False
    """Let the trainer compute log-probabilities while the last verdicts of a batch are out, and wait for them only
    before advantages. Rewards and samples are the same; in ``sync`` only, and without group filtering. Set by
    ``recipe/mode=sync_overlap``; docs/trainer_modes.md says what becomes of groups that are lost."""
    weights_deadline_s: float = Field(default=1800.0, gt=0)
    """Seconds in which new weights must have reached all rollout servers, after each update; past it the run ends."""
    max_gen_batches: int = Field(default=30, ge=0)
    """With group filtering: how many training batches of groups may be generated for one step before the run saves and
    stops, since veRL would go on for ever; 0 for any number."""
    judge_log_dir: str = "logs/judge"
    """Folder of the logs of the judge replicas that the run starts, one file each, and of its verifier's key."""
    low_margin: float = Field(default=1.0, gt=0)
    """Nats below which a verdict counts as a close call in ``speciarl/margin/low_share``: at 1, the judge gave the
    label it chose less than e times the probability of the next."""
    samples_every: int = Field(default=10, ge=0)
    """Training steps from one page of sampled rollouts to the next; 0 for none."""
    samples_per_step: int = Field(default=8, ge=1)
    """Prompts shown on a page, each with all its rollouts."""
    samples_kept: int = Field(default=50, ge=1)
    """Number of pages that are kept, the newest."""
    samples_dir: str = "logs/samples"
    """Folder of the pages, one self-contained HTML file per sampled step."""


class SpeciaRLConfig(BaseModel):
    """Root of the ``speciarl:`` node."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)  # a URL may hold a password

    verifier: VerifierConfig
    """The judge that scores the rollouts."""
    reward: RewardConfig = RewardConfig()
    """How verdicts become rewards."""
    training: TrainingConfig = TrainingConfig()
    """What our trainer adds to veRL's."""
    algorithm: str = ""
    """Name of the option of ``recipe/algorithm``, for names of runs. What is done stands in veRL's keys."""
    data_hint: str = "see docs/data.md for how to build it"
    """How to build the data files, shown when one is missing or unfit."""


def load(config: DictConfig) -> SpeciaRLConfig:
    """The validated ``speciarl:`` node of a composed run; raises ConfigError in one line."""
    node = OmegaConf.select(config, "speciarl")
    if node is None:
        raise ConfigError("there is no speciarl: node; start from the recipe with +recipe=speciarl")
    try:
        plain: Any = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}; set it on the command line") from error
    return parse(plain)


def parse(node: Mapping[str, Any]) -> SpeciaRLConfig:
    """Validate a plain ``speciarl:`` mapping; raises ConfigError naming every wrong key in one line."""
    try:
        return SpeciaRLConfig.model_validate(node)
    except ValidationError as error:
        problems = wrong_keys.describe(error, SpeciaRLConfig, "speciarl")
        raise ConfigError(f"{problems}. The fields are described in speciarl/config.py") from error
