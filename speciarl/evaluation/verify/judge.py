"""Judge of an evaluation: its configuration, and its identity, by which verdict tables tell judges apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speciarl.answer import NORMALISER_VERSION
from speciarl.errors import VerifierStartError
from speciarl.evaluation.config import JudgeConfig
from speciarl.verifier_server.config import StoreConfig, VerifierConfig

_OF_SERVICE = ("kind", "model", "revision", "prompt_hash", "decoding", "thinking", "max_string_chars")
"""What a service tells about a judge that decides its verdicts."""


def configuration(judge: JudgeConfig, name: str, out: Path) -> VerifierConfig:
    """The judge as training would have it, with a store at ``OUT/verdicts/NAME.sqlite`` where it has none of its own.

    A hierarchy needs none, and a service has its own. Raises ConfigError in one line.
    """
    from speciarl.verifier_server.judge_config import judge_config

    overrides = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in judge.settings.items()]
    config = judge_config(judge.use, overrides)
    if config.store or config.service_url or config.kind == "taxonomy":
        return config
    return config.model_copy(update={"store": StoreConfig(path=str(out / "verdicts" / f"{name}.sqlite"))})


async def identity(config: VerifierConfig) -> dict[str, Any]:
    """All settings that decide verdicts, known before the judge starts: what the verdict store's key holds, and what is
    decided without a judge. Where it runs, deadlines and retries take no part.

    Decoding is as configured: which of its ways ``auto`` becomes is found out at the start, and is part of the store's
    key. A service is asked for what its judge is. Raises VerifierStartError in one line when that, a model's file or a
    hierarchy cannot be read, and ConfigError for a prompt that cannot.
    """
    if config.service_url:
        return await _told_by_service(config)
    common = {"kind": config.kind, "max_string_chars": config.max_string_chars, "normaliser": NORMALISER_VERSION}
    try:
        if config.kind == "taxonomy":
            content = Path(config.taxonomy or "").read_bytes()
            return common | {"taxonomy": hashlib.sha256(content).hexdigest()}
        return common | _of_model(config)
    except OSError as error:
        raise VerifierStartError(
            f"judge {config.name!r}: {error.filename} cannot be read ({error.strerror}); prepare it first, or correct "
            f"`{'taxonomy' if config.kind == 'taxonomy' else 'model'}`"
        ) from error


def _of_model(config: VerifierConfig) -> dict[str, Any]:
    from speciarl.verifier_server.judge.prompt import load_prompt
    from speciarl.verifier_server.store import model_revision

    prompt, model = load_prompt(config.prompt), config.model or config.served_name
    return {
        # Of a local directory the files count, not where they lie.
        "model": Path(model).name if Path(model).is_dir() else model,
        "revision": model_revision(config),
        "prompt": prompt.content_hash,
        "labels": list(prompt.scheme.labels),
        "decoding": config.decoding,
        "thinking": config.thinking,
        "thinking_tokens": config.thinking_tokens,
        "request_fields": config.request_fields,
        "pairs_per_request": config.pairs_per_request,
        "min_label_mass": config.min_label_mass,
        "exact_shortcut": config.exact_shortcut,
        "abstain_shortcut": config.abstain_shortcut,
    }


async def _told_by_service(config: VerifierConfig) -> dict[str, Any]:
    import aiohttp

    from speciarl.utils.credentials import public_url, read_key
    from speciarl.verifier_server.client.http import Failure
    from speciarl.verifier_server.remote_verifier import ServiceClient

    key = read_key(config.api_key_file, f"judge {config.name!r}") if config.api_key_file else None
    async with aiohttp.ClientSession() as session:
        client = ServiceClient(config.service_url or "", session, config.request_timeout_s, key)
        reply = await client.get("v1/judges")
    where = f"judge {config.name!r}: {public_url(config.service_url or '')}"
    if isinstance(reply, Failure):
        cause = " ".join(reply.unscorable.detail.split())
        raise VerifierStartError(f"{where}: {cause}; start the service or correct `service_url`")
    judges = reply.get("judges") if isinstance(reply, Mapping) else None
    for judge in judges if isinstance(judges, list) else ():
        if isinstance(judge, Mapping) and judge.get("name") == config.name:
            return {"service": config.name} | {field: judge.get(field) for field in _OF_SERVICE}
    raise VerifierStartError(f"{where} has no such judge; correct `name` or `service_url`")
