"""veRL checkpoints: where one is, whether it is whole, and its tensors put together from the ranks' shards.

``global_step_N/actor/`` holds ``model_world_size_W_rank_R.pt`` (FSDP 1 and 2: what rank R had of each tensor),
``fsdp_config.json`` (W), ``huggingface/`` (configuration and tokenizer, no weights) and, with LoRA,
``lora_train_meta.json`` (rank, alpha). Older releases have ``lora_adapter/adapter_config.json`` instead.
With ``save_lora_only`` the shards hold the adapter alone, else the base as well. Read in veRL 0.9.1,
utils/checkpoint/fsdp_checkpoint_manager.py.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speciarl.errors import DataError
from speciarl.evaluation.models.weights import load

if TYPE_CHECKING:
    from torch import Tensor

TRACKER = "latest_checkpointed_iteration.txt"
_SHARD = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")


@dataclass(frozen=True)
class Checkpoint:
    """A veRL checkpoint of the policy."""

    actor: Path
    shards: Sequence[Path]
    """One file per rank, in order."""

    @property
    def files(self) -> list[Path]:
        """All files that its model is made of."""
        settings = [path for path in sorted(self.huggingface.rglob("*")) if path.is_file()]
        records = [path for path in (self.actor / name for name in _ADAPTER_RECORDS) if path.is_file()]
        return [*self.shards, *records, *(path for path in settings if path.suffix not in (".safetensors", ".bin"))]

    @property
    def huggingface(self) -> Path:
        """Folder of configuration and tokenizer."""
        return self.actor / "huggingface"

    @cached_property
    def adapter_record(self) -> Mapping[str, Any]:
        """What was written of the adapter besides its tensors; empty where nothing was."""
        found = (self.actor / name for name in _ADAPTER_RECORDS)
        return next((_json(path) for path in found if path.is_file()), {})

    @property
    def base_named(self) -> str | None:
        """Model that it names as its base, which veRL 0.9.1 does not record; None where it names none."""
        config = _json(self.huggingface / "config.json")
        return config.get("_name_or_path") or self.adapter_record.get("base_model_name_or_path") or None

    @cached_property
    def _ranks(self) -> list[dict[str, Any]]:
        import torch.distributed.tensor  # noqa: F401  (registers what sharded tensors are read with)

        with _quiet_mesh():
            ranks = [load(shard) for shard in self.shards]
        for shard, tensors in zip(self.shards, ranks, strict=True):
            if not isinstance(tensors, dict) or tensors.keys() != ranks[0].keys() or not tensors:
                raise DataError(f"{shard} has other tensors than {self.shards[0].name}; copy the checkpoint again")
        return ranks

    @property
    def names(self) -> list[str]:
        """Names of its tensors, sorted."""
        return sorted(self._ranks[0])

    def size(self, name: str) -> int:
        """Bytes of a whole tensor."""
        first = self._ranks[0][name]
        return int(first.numel() * first.element_size())

    def tensor(self, name: str) -> Tensor:
        """A whole tensor, put together. Files are mapped, so that only this one takes memory."""
        return _whole(name, [rank[name] for rank in self._ranks], self.actor)


_ADAPTER_RECORDS = ("lora_train_meta.json", "lora_adapter/adapter_config.json")


def locate(path: str) -> Checkpoint:
    """The checkpoint at ``…/global_step_N``, or the newest of a run's folder.

    Raises DataError in one line where there is none, or not all of it.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(f"there is no checkpoint {path}; give …/global_step_N, or the folder of a run")
    if (folder / TRACKER).is_file():
        said = (folder / TRACKER).read_text(encoding="utf-8", errors="replace").strip()
        folder = folder / f"global_step_{said}"
        if not folder.is_dir():
            raise DataError(f"{path} has no global_step_{said}, which {TRACKER} names; give …/global_step_N")
    actor = folder if folder.name == "actor" else folder / "actor"
    if not actor.is_dir():
        raise DataError(f"{path} has neither actor/ nor {TRACKER}; give …/global_step_N, or the folder of a run")
    return Checkpoint(actor, _shards(actor))


def _shards(actor: Path) -> list[Path]:
    found = [match for path in sorted(actor.iterdir()) if (match := _SHARD.fullmatch(path.name))]
    sizes = sorted({int(match[1]) for match in found})
    if not found:
        raise DataError(f"{actor} has no model_world_size_W_rank_R.pt; only checkpoints of FSDP can be read")
    if (actor / "fsdp_config.json").is_file():
        said = _json(actor / "fsdp_config.json").get("world_size")
        if sizes != [said]:
            raise DataError(
                f"{actor / 'fsdp_config.json'} says world size {said}, but shards are of {', '.join(map(str, sizes))}; "
                "copy the checkpoint again"
            )
    elif len(sizes) > 1:
        raise DataError(f"{actor} has shards of world sizes {', '.join(map(str, sizes))}; remove those that are old")
    shards = [actor / f"model_world_size_{sizes[0]}_rank_{rank}.pt" for rank in range(sizes[0])]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise DataError(f"{actor} lacks {', '.join(missing[:3])}; bring the shards of all nodes into this folder")
    if not (actor / "huggingface" / "config.json").is_file():
        raise DataError(f"{actor} has no huggingface/config.json; copy the checkpoint again")
    return shards


def _whole(name: str, parts: Sequence[Any], actor: Path) -> Tensor:
    import torch
    from torch.distributed.tensor import DTensor

    first = parts[0]
    if not isinstance(first, DTensor):  # not sharded: a buffer, or all there is on one rank
        if not all(isinstance(part, torch.Tensor) and torch.equal(part, first) for part in parts):
            raise DataError(f"{actor}: ranks differ in {name}, which is not sharded; copy the checkpoint again")
        plain: Tensor = first
        return plain
    mesh = first.device_mesh.mesh
    if mesh.numel() != len(parts):
        raise DataError(f"{actor}: {name} was spread over {mesh.numel()} ranks, but there are {len(parts)} shards")
    if not all(isinstance(part, DTensor) and part.placements == first.placements for part in parts):
        raise DataError(f"{actor}: ranks differ in how {name} is spread; copy the checkpoint again")
    local = [part._local_tensor for part in parts]  # `to_local` needs the processes that wrote it
    whole = _gathered(name, local, mesh, first.placements, actor)
    if whole.shape != first.shape:
        raise DataError(f"{actor}: shards of {name} give {tuple(whole.shape)}, not {tuple(first.shape)}; copy it again")
    return whole


def _gathered(name: str, local: Sequence[Tensor], mesh: Tensor, placements: Sequence[Any], actor: Path) -> Tensor:
    """One tensor of its parts, along the dimensions of the device mesh (with HSDP: replicas, then shards)."""
    import torch
    from torch.distributed.tensor import Replicate, Shard

    if not placements:
        return local[int(mesh)]
    placement, *inner = placements
    if isinstance(placement, Replicate):
        return _gathered(name, local, mesh[0], inner, actor)
    if type(placement) is not Shard:
        raise DataError(f"{actor}: {name} is spread as {placement}, which cannot be put together; save it without TP")
    if len(mesh) == 1:
        return _gathered(name, local, mesh[0], inner, actor)  # no copy
    return torch.cat([_gathered(name, local, part, inner, actor) for part in mesh], dim=placement.dim)


@contextlib.contextmanager
def _quiet_mesh() -> Iterator[None]:
    """Without torch's remark that a device mesh is read outside the job that wrote it, once per file."""
    logger = logging.getLogger("torch.distributed.device_mesh")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({' '.join(str(error).split())}); copy the checkpoint again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no JSON object; copy the checkpoint again")
    return content
