"""Store key: the identity of a judge, and the content-addressed key of a pair under that judge."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from speciarl.answer import NORMALISER_VERSION
from speciarl.verdict import Pair
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.judge.prompt import SAMPLE_PAIR, Prompt
from speciarl.verifier_server.judge.request import AnyDecoder, chat_body

KEY_VERSION = 1
"""Version of the keys, raised when they are computed differently; entries under old keys are then never found."""

_TYPES: Mapping[str, tuple[type, ...]] = {
    "kind": (str,),
    "model": (str,),
    "revision": (str, type(None)),
    "prompt": (str,),
    "labels": (list,),
    "decoding": (str,),
    "request": (str,),
    "pairs_per_request": (int,),
    "normaliser": (int,),
}


@dataclass(frozen=True)
class JudgeIdentity:
    """Identity of a judge: all that decides its verdicts. Where it runs, deadlines and retries take no part."""

    kind: str
    """API the judge is asked through, e.g. `vllm`."""
    model: str
    """Model name or directory."""
    revision: str | None
    """Model revision, or a hash of a local directory's files; None when neither is known, as with hosted APIs:
    their verdicts are keyed by the model's name."""
    prompt: str
    """`Prompt.content_hash`."""
    labels: tuple[str, ...]
    """Labels in category order."""
    decoding: str
    """How the category is asked for and read: `Decoder.identity`."""
    request: str
    """Canonical JSON of the request without the pair: decoding fields, template switches, `request_fields`, and
    a hash of the messages rendered for a sample pair."""
    pairs_per_request: int = 1
    """Pairs judged together."""
    normaliser: int = NORMALISER_VERSION
    """Version of the text normalisation."""

    @cached_property
    def fingerprint(self) -> bytes:
        """SHA-256 of `to_json()`, 32 bytes."""
        return hashlib.sha256(self.to_json().encode()).digest()

    def key(self, pair: Pair) -> bytes:
        """The key of a normalised pair, 32 bytes: see `verdict_key`."""
        return verdict_key(self.fingerprint, pair)

    def to_json(self) -> str:
        """Canonical JSON: equal texts for equal identities, and for no others."""
        return canonical_json({"key_version": KEY_VERSION} | dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The identity that `to_json` wrote; raises ValueError for any other text."""
        fields = json.loads(text)
        if not isinstance(fields, dict) or fields.pop("key_version", None) != KEY_VERSION or set(fields) != set(_TYPES):
            raise ValueError("no judge identity of this version")
        for name, types in _TYPES.items():
            if not isinstance(fields[name], types) or isinstance(fields[name], bool):  # a bool is an int
                raise ValueError(f"{name} of a judge identity has the wrong type")
        return cls(**(fields | {"labels": tuple(map(str, fields["labels"]))}))


def verdict_key(fingerprint: bytes, pair: Pair) -> bytes:
    """SHA-256 over the judge's fingerprint (32 bytes), the length of the ground truth, and both texts.

    The length keeps two different pairs from being the same bytes, such as ("ab", "c") and ("a", "bc").
    """
    truth = pair.ground_truth.encode()
    return hashlib.sha256(fingerprint + len(truth).to_bytes(4, "big") + truth + pair.prediction.encode()).digest()


def identity_of(config: VerifierConfig, prompt: Prompt, decoder: AnyDecoder, revision: str | None) -> JudgeIdentity:
    """The identity of the judge that a configuration, its prompt and the decoder chosen by the probe define."""
    body: dict[str, Any] = chat_body(config, prompt, decoder, SAMPLE_PAIR)
    body["messages"] = hashlib.sha256(canonical_json(body["messages"]).encode()).hexdigest()
    if "model" not in config.request_fields:
        body.pop("model")  # only the server's alias; the model is a field of its own
    return JudgeIdentity(
        kind=config.kind,
        model=config.model or config.served_name,
        revision=revision,
        prompt=prompt.content_hash,
        labels=prompt.scheme.labels,
        decoding=decoder.identity,
        request=canonical_json(body),
        pairs_per_request=config.pairs_per_request,
    )


def verified_judges(rows: Iterable[tuple[bytes, bytes]]) -> dict[bytes, JudgeIdentity]:
    """Identities by fingerprint, from rows of fingerprint and JSON; rows whose two parts do not match are left out."""
    known = {}
    for fingerprint, content in rows:
        with contextlib.suppress(ValueError, TypeError):
            judge = JudgeIdentity.from_json(content)
            if judge.fingerprint == fingerprint:
                known[fingerprint] = judge
    return known


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


HASHED_BYTES = 64 * 2**20
"""Size up to which the content of a file is hashed; of a larger one, size and modification time are."""


def model_revision(config: VerifierConfig) -> str | None:
    """The configured revision, or a hash of the files of a local directory; None when there is neither.

    Blocks while it reads. Raises OSError when a file cannot be read.
    """
    directory = Path(config.model or "")
    if config.model and directory.is_dir():
        return f"files:{fingerprint(directory)}"
    return config.revision


def fingerprint(directory: Path) -> str:
    """SHA-256 over names and contents of the files at the top level of a directory; hidden files are skipped."""
    whole = hashlib.sha256()
    for file in sorted(path for path in directory.iterdir() if path.is_file() and not path.name.startswith(".")):
        status = file.stat()
        state = f"{status.st_size} {status.st_mtime_ns}".encode()
        content = state if status.st_size > HASHED_BYTES else file.read_bytes()
        for part in (file.name.encode(), content):
            whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()
