"""Resolution of a model: which directory vLLM loads, which adapter goes with it, and their hashes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from speciarl.errors import ConfigError, DataError
from speciarl.evaluation.config import ModelConfig
from speciarl.evaluation.models import adapter as adapters
from speciarl.evaluation.models import checkpoint as checkpoints
from speciarl.evaluation.models import conversion, merging
from speciarl.evaluation.models.cache import made
from speciarl.evaluation.models.fingerprint import adapter_files, combined, fingerprint, model_files
from speciarl.evaluation.models.hub import directory
from speciarl.evaluation.models.weights import weights

Say = Callable[[str], None]
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True)
class ResolvedModel:
    """A model that is ready for vLLM."""

    directory: Path
    """Of the weights that vLLM loads: base, converted or merged."""
    adapter: Path | None
    """PEFT directory to serve beside it; None where there is none, or it is merged."""
    weights_sha: str
    """Hash of the content of every file that can change an answer; for weights that were made, of what they were made
    from and how."""
    adapter_sha: str | None
    """Hash of the adapter's content; None where there is none, or it is merged and so in `weights_sha`."""
    generation: Mapping[str, Any]
    """Sampling fields of generation_config.json."""
    described: str
    """One line for people."""
    rank: int | None = None
    """Rank of the adapter to serve, for vLLM's `max_lora_rank`: the largest of its modules."""


@dataclass(frozen=True)
class IdentifiedModel:
    """A model that was found and hashed, of which nothing is converted or merged yet."""

    config: ModelConfig
    base: Path | None
    """Directory of the model; None where its weights are in the checkpoint."""
    adapter: Path | None
    """Directory of the adapter; None where there is none, or it is in the checkpoint."""
    checkpoint: checkpoints.Checkpoint | None
    alpha: float | None
    """LoRA alpha of the checkpoint's adapter; None where it has none."""
    base_sha: str
    added_sha: str | None
    """Hash of the adapter, whether merged or not."""

    @property
    def weights_sha(self) -> str:
        """See `ResolvedModel.weights_sha`."""
        if self.config.merge and self.added_sha:
            return combined("merged", merging.METHOD, self.base_sha, self.added_sha)
        return self.base_sha

    @property
    def adapter_sha(self) -> str | None:
        """See `ResolvedModel.adapter_sha`."""
        return None if self.config.merge else self.added_sha

    @property
    def generation(self) -> dict[str, Any]:
        """See `ResolvedModel.generation`."""
        if self.base is not None:
            return generation(self.base)
        assert self.checkpoint is not None
        return generation(self.checkpoint.huggingface)

    def prepare(self, cache: Path, say: Say) -> ResolvedModel:
        """The model, converted, checked and merged as needed; what is made is kept in `cache`.

        Raises SpeciaRLError in one line, above all for an adapter that does not fit the base or changes nothing.
        """
        base = self.base or self._converted(cache, say)
        described = [self._base_described()]
        folder, rank = self.adapter or self._converted_adapter(cache, say), None
        if folder:
            adapter = adapters.read(folder)
            adapter.targets(weights(base))
            origin = self.config.adapter or f"adapter of {self.config.checkpoint}"
            described.append(
                f"{origin} (rank {adapter.rank}, alpha {adapter.alpha:g}, {len(adapter.matrices)} modules)"
            )
            if self.config.merge:
                described.append("merged")
                merge = partial(self._merge, base, adapter, say)
                base, folder = made(cache, "merged", self.weights_sha, merge, say), None
            else:
                adapter.refuse_unserved()
                rank = max(a.shape[0] for a, _ in adapter.matrices.values())
        return ResolvedModel(
            base, folder, self.weights_sha, self.adapter_sha, generation(base), " + ".join(described), rank
        )

    def _base_described(self) -> str:
        if self.base is None:
            return f"weights of {self.config.checkpoint}"
        name = self.config.path or str(self.base)
        return f"{name}@{self.config.revision}" if self.config.revision else name

    def _merge(self, base: Path, adapter: adapters.Adapter, say: Say, target: Path) -> None:
        say(f"merging {adapter.folder} into {base}")
        merging.merge(base, adapter, target)

    def _converted(self, cache: Path, say: Say) -> Path:
        def convert(target: Path) -> None:
            say(f"converting the weights of {source.actor}")
            conversion.write_weights(source, target)

        assert self.checkpoint is not None
        source = self.checkpoint
        return made(cache, "converted", self.base_sha, convert, say)

    def _converted_adapter(self, cache: Path, say: Say) -> Path | None:
        def convert(target: Path) -> None:
            say(f"converting the adapter of {source.actor}")
            conversion.write_adapter(source, alpha, target)

        if self.checkpoint is None or self.alpha is None or self.added_sha is None:
            return None
        source, alpha = self.checkpoint, self.alpha
        return made(cache, "adapter", self.added_sha, convert, say)


def resolve(config: ModelConfig, cache: Path, say: Say) -> ResolvedModel:
    """A model, downloaded, converted, checked and merged as needed; what is made is kept in `cache` and used again.

    `say` is told, in a line each, what takes time. Raises SpeciaRLError in one line.
    """
    return identify(config, say).prepare(cache, say)


def identify(config: ModelConfig, say: Say) -> IdentifiedModel:
    """A model's hashes, for which all its bytes are read and nothing is written (but what the Hub's cache lacks).

    Raises SpeciaRLError in one line.
    """
    if config.endpoint:
        raise ConfigError(f"{config.path} is served by {config.endpoint}, whose weights cannot be seen")
    if config.checkpoint:
        return _of_checkpoint(config, checkpoints.locate(config.checkpoint), say)
    base = directory(str(config.path), config.revision, "path", say)
    base_sha = _hashed(base, say)
    if not config.adapter:
        if config.merge:
            raise ConfigError("`merge` is set, but there is no `adapter` to merge; leave it out")
        return IdentifiedModel(config, base, None, None, None, base_sha, None)
    adapter = directory(config.adapter, None, "adapter", say)
    added_sha = fingerprint(adapter, adapter_files(adapter))
    return IdentifiedModel(config, base, adapter, None, None, base_sha, added_sha)


def _of_checkpoint(config: ModelConfig, source: checkpoints.Checkpoint, say: Say) -> IdentifiedModel:
    say(f"reading {source.actor}")
    sha = combined("veRL", conversion.METHOD, fingerprint(source.actor, source.files))
    if not conversion.has_adapter(source):
        for key in ("path", "merge", "lora_alpha"):
            if getattr(config, key):
                raise ConfigError(f"{config.checkpoint} has whole weights and no adapter; leave `{key}` out")
        return IdentifiedModel(config, None, None, source, None, sha, None)
    alpha = conversion.alpha_of(source, config.lora_alpha)
    added_sha = combined("adapter", sha, f"{alpha:g}")
    if config.path is None and conversion.has_weights(source):
        return IdentifiedModel(config, None, None, source, alpha, sha, added_sha)
    name = config.path or source.base_named
    if not name:
        raise ConfigError(
            f"{source.actor} holds an adapter and does not name its base model; give `path`: what "
            "actor_rollout_ref.model.path was in training"
        )
    base = directory(name, config.revision, "path" if config.path else f"base model of {config.checkpoint}", say)
    return IdentifiedModel(config, base, None, source, alpha, _hashed(base, say), added_sha)


def _hashed(folder: Path, say: Say) -> str:
    files = model_files(folder)
    say(f"reading {folder} ({sum(file.stat().st_size for file in files) / 1e9:.1f} GB)")
    return fingerprint(folder, files)


def generation(folder: Path) -> dict[str, Any]:
    """Sampling fields that a model's generation_config.json sets; raises DataError in one line for a broken file."""
    file = folder / "generation_config.json"
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {key: content[key] for key in _SAMPLING if content.get(key) is not None}
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{file} cannot be read ({' '.join(str(error).split())}); download it again") from error
