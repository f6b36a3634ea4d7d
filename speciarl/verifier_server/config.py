"""Verifier configuration: the judge that scores the answers, its deadlines and limits."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from speciarl.errors import ConfigError
from speciarl.utils.credentials import authorization, public_url, split


class PoolConfig(BaseModel):
    """Pool of vLLM judge replicas that the run starts on Ray, with dedicated resources, and stops at its end."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replicas: int = Field(default=1, ge=1)
    """Number of `vllm serve` processes."""
    gpus_per_replica: float = Field(default=1, ge=0)
    """GPUs reserved on Ray for each replica; 0 on a machine without any."""
    cpus_per_replica: float = Field(default=1, ge=0)
    """CPU cores reserved on Ray for each replica."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs over which one replica splits the model."""
    max_model_len: int | None = Field(default=None, ge=1)
    """Context length in tokens; None leaves the model's own."""
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    """Share of each GPU's memory a replica may take; None leaves vLLM's default."""
    dtype: str = "auto"
    """Weight type, e.g. `bfloat16` or `float32`."""
    engine_args: dict[str, bool | int | float | str | None] = Field(default_factory=dict)
    """Further `vllm serve` options, e.g. `{enforce_eager: true, max_num_seqs: 64}`. True gives a bare flag,
    False its `--no-` form; null leaves the option out."""
    startup_deadline_s: float = Field(default=900, gt=0)
    """Seconds from the start of a replica until it must answer, the download of its model not included."""
    download_deadline_s: float = Field(default=7200, gt=0)
    """Seconds the download of the model may take, where it is not on the replica's machine yet."""
    placement_deadline_s: float = Field(default=60, gt=0)
    """Seconds Ray may take to place the replicas; a cluster that starts machines on demand needs minutes."""
    stop_deadline_s: float = Field(default=20, gt=0)
    """Seconds a replica may take to stop before it is killed."""
    max_restarts: int = Field(default=20, ge=-1)
    """How often Ray may start one replica again in a run before it is given up; 0 never, -1 without bound."""
    restart_backoff_s: float = Field(default=2, ge=0)
    """Seconds before the first restart of a replica; doubles with each further one, up to a minute."""
    unhealthy_deadline_s: float = Field(default=60, gt=0)
    """Seconds a running replica may fail its health check before it is restarted."""
    max_replicas: int | None = Field(default=None, ge=1)
    """Most replicas when Ray Serve scales with the load, `replicas` being the fewest; None: a fixed number. A pool
    inside a training run does not scale."""
    target_ongoing_requests: float = Field(default=32, gt=0)
    """HTTP requests in flight in one replica above which Ray Serve starts another; a replica takes at most twice as
    many. Chats that share a request (`chats_per_request`) count once."""
    grow_after_s: float = Field(default=30, ge=0)
    """Seconds for which the load must be above that before Ray Serve starts a replica."""
    shrink_after_s: float = Field(default=600, ge=0)
    """Seconds for which fewer replicas would do before Ray Serve stops one."""

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"`max_replicas` ({self.max_replicas}) is below `replicas` ({self.replicas})")
        return self


class StoreConfig(BaseModel):
    """Verdict store, which keeps verdicts beyond the process: content-addressed, first writer wins."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    kind: Literal["file", "redis"] = "file"
    """`file`: one SQLite file, shared by the processes of one machine. `redis`: shared by many machines."""
    path: str | None = None
    """The file, for `kind: file`; made when missing. Not on a network file system: use Redis there."""
    url: str | None = None
    """`redis://host:6379/0`, for `kind: redis`; without a password in it, see `password_file`."""
    password_file: str | None = None
    """File that holds the Redis password and nothing else."""
    prefix: str = "speciarl"
    """First part of every Redis key, so that a server may be shared with others."""
    open_deadline_s: float = Field(default=60.0, gt=0)
    """Seconds the store may take to open at the start; long on a network file system or a busy machine."""
    timeout_s: float = Field(default=5.0, gt=0)
    """Seconds one look-up or write may take; after that the pair is judged as without a store."""

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        wanted, other = ("path", "url") if self.kind == "file" else ("url", "path")
        if not getattr(self, wanted):
            raise ValueError(f"`{wanted}` is missing: a store of kind {self.kind} needs it")
        if getattr(self, other):
            raise ValueError(f"`{other}` has no meaning for a store of kind {self.kind}")
        if self.url:
            parts = split(self.url)
            if parts is None or parts.scheme not in ("redis", "rediss", "unix"):
                raise ValueError(f"{public_url(self.url)!r} is no Redis URL; write it like redis://host:6379/0")
        return self


def _request_timeout_s(validated: dict[str, Any]) -> float:
    """Default of `request_timeout_s`: short for a reply of one label, long for one that may hold much text."""
    # A field that failed validation is absent; the user sees the error of that field.
    one_label = not validated.get("thinking") and validated.get("pairs_per_request", 1) == 1
    return 15 if validated.get("kind") == "vllm" and one_label and not validated.get("service_url") else 120


class VerifierConfig(BaseModel):
    """Configuration of one judge."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str = Field(default="judge", min_length=1)
    """Name of the judge in logs and errors."""
    kind: Literal["vllm", "openai", "taxonomy"] = "vllm"
    """`vllm`: a vLLM server, whose extensions are used. `openai`: any OpenAI-compatible chat API. `taxonomy`:
    no model, the exact answer from a hierarchy."""
    model: str | None = None
    """Model name or local directory."""
    served_model_name: str | None = None
    """The name under which the endpoint knows the model; `model` when not given."""
    revision: str | None = None
    """Model revision that managed replicas load."""
    endpoints: tuple[str, ...] = ()
    """Base URLs of servers that run already, e.g. `http://localhost:8000/v1`. Load is spread over them."""
    pool: PoolConfig | None = None
    """Replicas for the run to start, instead of `endpoints`."""
    api_key_file: str | None = None
    """File that holds the API key and nothing else."""
    prompt: str = "base"
    """Judge prompt: a shipped name, or the path of a YAML file."""
    decoding: Literal["auto", "first_token", "choice"] = "auto"
    """`first_token`: one generated token; the verdict is read off the log-probabilities of the labels' first tokens,
    with a margin; vLLM only. `choice`: constrained decoding of the whole label. `auto`: `first_token` where the judge
    allows it, else `choice`."""
    thinking: bool = False
    """Let a reasoning model reason before the label; needs `choice`, and with vLLM a server started with
    `--reasoning-parser`."""
    thinking_tokens: int = Field(default=2048, ge=1)
    """Most tokens of a thinking judge's reply: reasoning and label for one pair, or the reasoning about all pairs of
    the request."""
    request_fields: dict[str, Any] = Field(default_factory=dict)
    """Fields to add to every chat request, or null to leave one of ours out, for APIs that differ, e.g.
    `{max_tokens: null, max_completion_tokens: 64}`."""
    min_label_mass: float = Field(default=0.05, ge=0, le=1)
    """Least total probability of the labels where a verdict is read off the first token. Below it the judge would
    rather say something that is no label, and the pair is unscorable(off_label); 0 takes any."""
    exact_shortcut: bool = True
    """Call equal (normalised) strings `specific` without asking the judge."""
    abstain_shortcut: bool = False
    """Call plain refusals such as "none" `abstain` without asking the judge."""
    max_string_chars: int = Field(default=512, ge=1)
    """Longest normalised string that any judge is asked about. A longer prediction is no name and counts as wrong; a
    longer ground truth is unscorable(too_long)."""
    max_concurrency: int = Field(default=256, ge=1)
    """Most requests in flight over all endpoints; the rest wait in a local queue. Of chats that share an HTTP request
    each counts."""
    chats_per_request: int = Field(default=8, ge=1)
    """Most chats that share one HTTP request when sent in the same instant, where a vLLM server takes several and the
    decoding is `first_token`; saves HTTP overhead on both sides. 1 sends each by itself."""
    pairs_per_request: int = Field(default=1, ge=1, le=200)
    """Most pairs in one request, for hosted APIs where requests are expensive; more than 1 needs a prompt of format
    `many`."""
    service_url: str | None = None
    """Base URL of a verifier service (`speciarl verifier serve`) that judges instead of this process. Its judge is
    the one called `name`; `model`, `endpoints`, `pool` and `taxonomy` are then configured at the service and
    must be left out; the prompt is the service's too."""
    request_timeout_s: float = Field(default_factory=_request_timeout_s, gt=0)
    """Seconds one HTTP request may take; then it is cancelled and retried, on another endpoint where there is one. When
    not given, 15 for a judge of kind `vllm` that replies with one label (no `thinking`, one pair per request, no
    `service_url`), and 120 for all else: hosted APIs, reasoning, many pairs per request, a service."""
    total_deadline_s: float = Field(default=300, gt=0)
    """Seconds one pair may take: local queue, requests and retries together."""
    retries: int = Field(default=8, ge=0)
    """Retry budget: further attempts after one that reached a judge and failed with a transient error. With 8, a judge
    that fails three requests in ten loses one pair in 50,000. Refused connections and overload (HTTP 429 and 503) cost
    none: they are waited out until `total_deadline_s`."""
    backoff_s: float = Field(default=0.5, ge=0)
    """Longest wait before the first retry, in seconds; doubles with each one (exponential backoff). The wait is drawn
    evenly from 0 to that (full jitter)."""
    cache_size: int = Field(default=100_000, ge=0)
    """Verdicts kept in memory, least recently used dropped first; 0 keeps none."""
    probe: bool = True
    """Judge the prompt's golden pairs at the start. Reachability, model and decoding are checked in any case."""
    startup_deadline_s: float = Field(default=10, gt=0)
    """Seconds the endpoints may take to answer at the start; raise it when they start together with the run."""
    taxonomy: str | None = None
    """Path of the hierarchy, a JSON file, for `kind: taxonomy`."""
    store: StoreConfig | None = None
    """Verdict store; None keeps verdicts in memory only. Without effect for `kind: taxonomy`, which needs none, and
    beside `service_url`, where the service has its own."""
    gather_s: float = Field(default=0.03, ge=0)
    """Longest wait of a pair for others to share its request, in seconds, with `pairs_per_request` above 1."""
    max_waiting: int = Field(default=100_000, ge=1)
    """Most pairs in the local queue (admission control); one more is unscorable(overloaded) at once."""
    health_interval_s: float = Field(default=5.0, gt=0)
    """Longest pause between two health checks of an ejected endpoint, in seconds."""

    @property
    def served_name(self) -> str:
        """The model name to put in requests."""
        return self.served_model_name or self.model or ""

    @field_validator("endpoints", mode="before")
    @classmethod
    def _one_or_several(cls, endpoints: object) -> object:
        return (endpoints,) if isinstance(endpoints, str) else endpoints

    @field_validator("endpoints")
    @classmethod
    def _are_urls(cls, endpoints: tuple[str, ...]) -> tuple[str, ...]:
        for endpoint in endpoints:
            _require_http_url(endpoint, "http://host:8000/v1")
        return endpoints

    @field_validator("service_url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        if url is not None:
            _require_http_url(url, "http://host:8100")
        return url

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        if self.api_key_file and any(map(authorization, (*self.endpoints, self.service_url or ""))):
            raise ValueError("`api_key_file` and a user name in a URL: a request carries one of them, so give one")
        if self.service_url:
            for name in ("model", "endpoints", "pool", "taxonomy"):
                if getattr(self, name):
                    raise ValueError(f"`{name}` is the service's business: leave it out beside `service_url`")
            return self
        if self.kind == "taxonomy":
            if not self.taxonomy:
                raise ValueError("`taxonomy` is missing: kind taxonomy needs the path of the hierarchy")
            for name in ("endpoints", "pool"):
                if getattr(self, name):
                    raise ValueError(f"`{name}` is for judges with a model: leave it out beside kind taxonomy")
            return self
        if not self.served_name:
            raise ValueError(f"`model` is missing: kind {self.kind} needs a model name")
        if self.kind == "openai" and self.pool:
            raise ValueError("`pool` starts vLLM servers: use kind vllm, or give `endpoints`")
        if bool(self.endpoints) == bool(self.pool):
            found = "both are given" if self.pool else "neither is given"
            raise ValueError(f"give either `endpoints` or `pool` ({found})")
        if self.pool and not self.model:
            raise ValueError("`model` is missing: a pool needs the model to load")
        if self.decoding == "first_token" and self.kind == "openai":
            raise ValueError("`decoding: first_token` needs vLLM's extensions: use kind vllm, or choice")
        if self.decoding == "first_token" and self.thinking:
            raise ValueError("`decoding: first_token` leaves no room for `thinking`: use choice, or thinking: false")
        if self.decoding == "first_token" and self.pairs_per_request > 1:
            raise ValueError("`decoding: first_token` judges one pair: use choice or auto, or `pairs_per_request: 1`")
        return self


def _require_http_url(url: str, example: str) -> None:
    parts = split(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        encoded = ", with / ? # @ of a password as %2F %3F %23 %40" if "@" in url else ""
        raise ValueError(f"{public_url(url)!r} is no URL; write it like {example}{encoded}")
    route = next(
        (route for route in ("/chat/completions", "/completions", "/models") if parts.path.endswith(route)), None
    )
    if route is not None:
        raise ValueError(f"{public_url(url)!r} is the URL of one route; leave {route} out")


def parse_config(mapping: Mapping[str, Any], at: str = "verifier") -> VerifierConfig:
    """Validate a plain mapping; raises ConfigError with one line on the first wrong key: key, cause, remedy.

    `at` is the path of the mapping in the user's configuration.
    """
    try:
        return VerifierConfig.model_validate(mapping)
    except ValidationError as error:
        raise ConfigError(_one_line(error, at)) from error


def _one_line(error: ValidationError, at: str) -> str:
    problem = error.errors(include_url=False)[0]
    path = ".".join((at, *map(str, problem["loc"])))
    if problem["type"] == "extra_forbidden":
        sections: dict[object, type[BaseModel]] = {"pool": PoolConfig, "store": StoreConfig}
        fields = sections.get(problem["loc"][0], VerifierConfig).model_fields
        return f"{path}: there is no such key; known keys: {', '.join(sorted(fields))}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{path}: {message}" + ("" if problem["type"] == "value_error" else describe_input(problem["input"]))


def describe_input(given: object) -> str:
    """The end of a message on a wrong value; empty for a section, and for what may be a URL with a password."""
    return "" if isinstance(given, Mapping | BaseModel) or "@" in repr(given) else f" (got {given!r})"
