"""Service configuration: address, judges, limits, verdict log."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from speciarl.category import LABELS
from speciarl.errors import ConfigError
from speciarl.utils.addresses import KEY_REMEDY, exposure
from speciarl.verifier_server.config import StoreConfig, VerifierConfig, describe_input, parse_config

ANY = "*"
"""Wildcard in an alias: any prompt name, or none."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Pattern of the names of judges and runs, which appear in URLs, labels and file names."""

STORE_PATH = "checkpoints/verdicts.sqlite"
"""Default path of the verdict store: beside the directories of runs, any of which may be pointed at it."""

RUN_CHARS = 128
"""Most characters in the name of a run."""

JudgeName = Annotated[str, StringConstraints(pattern=NAME, max_length=100)]


def _as_list(given: Any) -> Any:
    return given if isinstance(given, Sequence) and not isinstance(given, str) else (given,)


Names = Annotated[tuple[str | None, ...], BeforeValidator(_as_list), Field(min_length=1)]
"""Names of a client, None for none; one may be given without a list."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)


class LimitsConfig(_Section):
    """Limits on requests, pairs and runs."""

    body_bytes: int = Field(default=16 * 2**20, ge=1024)
    """Longest request body."""
    body_deadline_s: float = Field(default=30, gt=0)
    """Seconds a client may take to send its body."""
    pairs_per_request: int = Field(default=10_000, ge=1)
    """Pairs in one request."""
    string_chars: int = Field(default=50_000, ge=1)
    """Longest text, as it is sent; a pair with a longer one is unscorable(too_long). A judge's own
    `max_string_chars`, which counts characters of the normalised text, must not be above it."""
    waiting_pairs: int = Field(default=20_000, ge=1)
    """Pairs being judged over all requests; a request that would exceed it is refused (HTTP 429)."""
    runs: int = Field(default=1000, ge=1)
    """Runs that are counted and logged."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.waiting_pairs < self.pairs_per_request:
            raise ValueError("`waiting_pairs` must not be below `pairs_per_request`")
        return self


class LogConfig(_Section):
    """The verdict log: every pair of every named run, in parquet."""

    directory: str
    """Directory of the runs' directories; made when missing. One service writes to it at a time."""
    rows_per_part: int = Field(default=5000, ge=1)
    """Rows in one file."""
    flush_s: float = Field(default=10, gt=0)
    """Seconds after which a file is written however few its rows are."""
    buffer_rows: int = Field(default=100_000, ge=1)
    """Rows that may wait for the disk; when they are that many, requests of runs are turned away (HTTP 503)."""


class AliasConfig(_Section):
    """Alias of a judge: model and prompt names of the paper's clients to which it answers."""

    judge: JudgeName
    """A name under `judges`."""
    model: Names = (None,)
    """The client's `model`, or a list of names that mean the same; None where it sends none."""
    prompt: Names = (None,)
    """The client's `verifier_prompt`, or a list; None where it sends none, `*` for any or none."""
    binary: bool = False
    """Whether this is for `/binary`, otherwise for `/standard`."""

    @property
    def names(self) -> list[tuple[str | None, str | None, bool]]:
        """Keys by which requests are looked up: model, prompt, whether they came to `/binary`."""
        return [(model, prompt, self.binary) for model, prompt in itertools.product(self.model, self.prompt)]


class BinaryConfig(_Section):
    """How `/binary` maps the six categories to two labels."""

    least: str = "specific"
    """The lowest category that counts as right, by its label."""
    right: str = "correct"
    """The word for that category and those above it."""
    wrong: str = "wrong"
    """The word for the categories below."""

    @model_validator(mode="after")
    def _is_label(self) -> Self:
        if self.least not in LABELS:
            raise ValueError(f"`least` is {self.least!r}; the categories are {', '.join(LABELS)}")
        return self


class ServiceConfig(_Section):
    """Configuration of the whole service."""

    host: str = "127.0.0.1"
    """Address to listen on. Any other than the loopback interface's needs `key_file`."""
    port: int = Field(default=8100, ge=0, le=65535)
    """Port to listen on; 0 takes a free one and says which."""
    key_file: str | None = None
    """File that holds the key clients must send as `Authorization: Bearer KEY`, and nothing else."""
    open_without_key: bool = False
    """Listen beyond the loopback interface although there is no key: everybody who reaches the port may judge."""
    store: StoreConfig | None = StoreConfig(path=STORE_PATH)
    """Where verdicts outlive the service, for every judge that has no `store` of its own, null included; None
    keeps them in memory only."""
    judges: Mapping[JudgeName, VerifierConfig] = Field(min_length=1)
    """Judges by name."""
    default_judge: str | None = None
    """Judge of requests that name none; the first of `judges` when not given."""
    default_binary_judge: str | None = None
    """The same for `/binary`; `default_judge` when not given."""
    aliases: tuple[AliasConfig, ...] = ()
    """Names that clients of the paper's release send. A judge's own name is known as a model without an alias."""
    binary: BinaryConfig = BinaryConfig()
    """How `/binary` maps the six categories to two labels."""
    limits: LimitsConfig = LimitsConfig()
    """Limits on requests, pairs and runs."""
    verdict_log: LogConfig | None = None
    """Where runs are logged; None counts them and keeps no rows."""
    judge_log_dir: str = "logs/judge"
    """Where judge replicas that the service starts write their logs."""
    ray_address: str | None = None
    """Ray cluster for judges with a `pool`; None starts one on this machine."""
    stop_deadline_s: float = Field(default=20, gt=0)
    """Seconds that requests under way get to end in a graceful shutdown."""

    @property
    def judge(self) -> str:
        """The judge of requests that name none."""
        return self.default_judge or next(iter(self.judges))

    @property
    def binary_judge(self) -> str:
        """The same for `/binary`."""
        return self.default_binary_judge or self.judge

    @field_validator("judges")
    @classmethod
    def _with_default_store(
        cls, judges: Mapping[JudgeName, VerifierConfig], info: ValidationInfo
    ) -> Mapping[JudgeName, VerifierConfig]:
        # pydantic validates in the order of the fields: `store` stands before `judges`, so it is there by now.
        shared = {"store": info.data.get("store")}
        return {
            name: judge
            if judge.kind == "taxonomy" or "store" in judge.model_fields_set
            else judge.model_copy(update=shared)
            for name, judge in judges.items()
        }

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        known = ", ".join(self.judges)
        named = {"default_judge": self.default_judge, "default_binary_judge": self.default_binary_judge}
        named |= {f"aliases.{index}.judge": alias.judge for index, alias in enumerate(self.aliases)}
        for key, name in named.items():
            if name is not None and name not in self.judges:
                raise ValueError(f"`{key}` is {name!r}, which is not under `judges` ({known})")
        seen: set[tuple[str | None, str | None, bool]] = set()
        for index, alias in enumerate(self.aliases):
            if not seen.isdisjoint(alias.names):
                raise ValueError(f"`aliases.{index}` has the model and the prompt of an alias before it")
            seen.update(alias.names)
        for name, config in self.judges.items():
            if config.service_url:
                raise ValueError(f"`judges.{name}.service_url`: a service does not judge through another service")
            if config.max_string_chars > self.limits.string_chars:
                raise ValueError(f"`judges.{name}.max_string_chars` is above `limits.string_chars`")
        exposed = None if self.key_file or self.open_without_key else exposure(self.host, KEY_REMEDY)
        if exposed is not None:
            raise ValueError(exposed)
        return self


def is_run_name(text: str) -> bool:
    """Whether a text is a valid name of a run."""
    return len(text) <= RUN_CHARS and re.fullmatch(NAME.strip("^$"), text) is not None


def parse_settings(mapping: Mapping[str, Any]) -> ServiceConfig:
    """Settings from a plain mapping; raises ConfigError in one line: key, cause, remedy. A judge's `name` defaults to
    its key."""
    judges = mapping.get("judges")
    parsed: dict[str, VerifierConfig] = {}
    if isinstance(judges, Mapping):
        for name, node in judges.items():
            if not isinstance(node, Mapping):
                raise ConfigError(f"judges.{name}: Input should be a mapping{describe_input(node)}")
            parsed[str(name)] = parse_config({"name": str(name), **node}, at=f"judges.{name}")
    try:
        return ServiceConfig.model_validate({**mapping, **({"judges": parsed} if parsed else {})})
    except ValidationError as error:
        raise ConfigError(_one_line(error)) from error


def _one_line(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    path = ".".join(map(str, problem["loc"])) or "service"
    if problem["type"] == "extra_forbidden":
        sections: dict[object, type[BaseModel]] = {
            "limits": LimitsConfig,
            "store": StoreConfig,
            "verdict_log": LogConfig,
            "aliases": AliasConfig,
            "binary": BinaryConfig,
        }
        fields = sections.get(problem["loc"][0], ServiceConfig).model_fields
        return f"{path}: there is no such key; known keys: {', '.join(sorted(fields))}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{path}: {message}" + ("" if problem["type"] == "value_error" else describe_input(problem["input"]))
