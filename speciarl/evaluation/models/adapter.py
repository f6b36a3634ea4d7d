"""LoRA adapters as PEFT writes them: what is read of one, and what is refused before it answers anything.

An adapter whose scale is 0, whose B matrices are all 0 or whose modules another model has, loads without complaint and
changes nothing: the answers would be the base model's under the adapter's name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speciarl.errors import DataError
from speciarl.evaluation.models.fingerprint import ADAPTER
from speciarl.evaluation.models.weights import Weights, canonical, load

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, TENSORS, _OLD_TENSORS = ADAPTER
_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_SERVED = re.compile(r"(layers\..+|lm_head)")
_REFUSED = {
    "use_dora": "DoRA", "modules_to_save": "modules saved whole", "fan_in_fan_out": "transposed weights",
    "target_parameters": "LoRA on parameters", "layer_replication": "replicated layers", "use_qalora": "QALoRA",
}  # fmt: skip


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: an update of scale x B A to the weight of each module."""

    folder: Path
    rank: int
    alpha: float
    scales: Mapping[str, float]
    """By module, as the adapter names it: alpha / rank, or alpha / sqrt(rank) with rsLoRA."""
    matrices: Mapping[str, tuple[Tensor, Tensor]]
    """A (rank, inputs) and B (outputs, rank), by module."""
    patterns: bool
    """Whether rank or alpha differ between modules, which PEFT takes into account and vLLM does not."""

    def targets(self, base: Weights) -> dict[str, str]:
        """Name of the weight in the base model that each module changes.

        Raises DataError in one line where the base has no such module, or one of another shape.
        """
        found = {}
        for module, (a, b) in self.matrices.items():
            weight = base.weight_of(module)
            if weight is None:
                raise DataError(
                    f"{self.folder} has {module}, which {base.folder} has not; give the model that it was trained on"
                )
            shape = base.shape(weight)
            if shape != (b.shape[0], a.shape[1]):
                raise DataError(
                    f"{self.folder} changes {module} as {b.shape[0]} x {a.shape[1]}, but {base.folder} has it as "
                    f"{' x '.join(map(str, shape))}; give the model that it was trained on"
                )
            found[module] = weight
        return found

    def refuse_unserved(self) -> None:
        """Raise DataError in one line for what vLLM would leave out, or scale otherwise, without a word."""
        other = [module for module in self.matrices if not _SERVED.fullmatch(canonical(module))]
        if other:
            raise DataError(
                f"{self.folder} changes {len(other)} modules outside the language model, e.g. {other[0]}, which vLLM "
                "leaves out when it serves an adapter; set `merge: true`"
            )
        if self.patterns:
            raise DataError(
                f"{self.folder} has ranks or alphas of its own for some modules, which vLLM does not heed when it "
                "serves an adapter; set `merge: true`"
            )


def read(folder: Path) -> Adapter:
    """The adapter in a directory; raises DataError in one line when it is none, or one that changes nothing."""
    settings = _settings(folder)
    tensors = load(folder / (TENSORS if (folder / TENSORS).is_file() else _OLD_TENSORS))
    modules = _paired(folder, tensors)
    scales = {module: _scale(folder, settings, module, a.shape[0]) for module, (a, _) in modules.items()}
    _refuse_untargeted(folder, settings.get("target_modules"), modules)
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise DataError(f"{folder} has numbers in {name} that are not finite; the adapter is broken")
    if not any(bool(b.any()) for _, b in modules.values()):
        raise DataError(f"{folder} changes nothing, as all its B matrices are 0: an adapter that was never trained")
    patterns = bool(settings.get("rank_pattern") or settings.get("alpha_pattern"))
    return Adapter(folder, settings["r"], settings["lora_alpha"], scales, modules, patterns)


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{folder} is no adapter, as {CONFIG} cannot be read ({error.strerror}); give a directory that PEFT wrote"
        ) from error
    except ValueError as error:
        raise DataError(f"{file} is no JSON; give a directory that PEFT wrote") from error
    if not isinstance(settings, dict) or settings.get("peft_type", "LORA") != "LORA":
        raise DataError(f"{file} describes no LoRA adapter, and no other kind is supported")
    for key in ("r", "lora_alpha"):
        value = settings.get(key)
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise DataError(f"{file}: {key} is {value!r} and must be above 0, as the adapter would have no effect")
    for key, meaning in _REFUSED.items():
        if settings.get(key):
            raise DataError(f"{file}: {meaning} ({key}) are not supported; merge the adapter with PEFT and give `path`")
    if settings.get("bias", "none") != "none":
        raise DataError(f"{file}: trained biases are not supported; merge the adapter with PEFT and give `path`")
    return settings


def _paired(folder: Path, tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in sorted(tensors.items()):
        match = _NAME.fullmatch(name)
        if match is None or tensor.ndim != 2:
            raise DataError(
                f"{folder} has {name}, which is no LoRA matrix; merge the adapter with PEFT and give `path`"
            )
        halves.setdefault(match[1], {})[match[2]] = tensor
    for module, pair in halves.items():
        if len(pair) < 2 or pair["A"].shape[0] != pair["B"].shape[1]:
            raise DataError(f"{folder} has no matching pair of A and B for {module}; the adapter is broken")
    if not halves:
        raise DataError(f"{folder} has no LoRA matrices; give a directory that PEFT wrote")
    return {module: (pair["A"], pair["B"]) for module, pair in halves.items()}


def _scale(folder: Path, settings: Mapping[str, Any], module: str, rank: int) -> float:
    said = _by_pattern(settings.get("rank_pattern"), module, settings["r"])
    if said != rank:
        raise DataError(f"{folder / CONFIG} says rank {said} for {module}, whose matrices have {rank}; one is wrong")
    alpha = float(_by_pattern(settings.get("alpha_pattern"), module, settings["lora_alpha"]))
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _by_pattern(patterns: Mapping[str, float] | None, module: str, default: float) -> float:
    keys = (key for key in patterns or {} if re.fullmatch(rf"(.*\.)?({key})", module))
    return next(((patterns or {})[key] for key in keys), default)


def _refuse_untargeted(folder: Path, targets: object, modules: Iterable[str]) -> None:
    """Refuse an adapter whose `target_modules` and matrices do not speak of the same modules."""
    if targets == "all-linear":
        return
    if isinstance(targets, str):
        wanted = {targets: re.compile(targets)}
    elif isinstance(targets, list) and targets:
        wanted = {str(target): re.compile(rf"(.*\.)?{re.escape(str(target))}") for target in targets}
    else:
        raise DataError(f"{folder / CONFIG}: target_modules is {targets!r} and must name modules")
    names = list(modules)
    for target, pattern in wanted.items():
        if not any(pattern.fullmatch(name) for name in names):
            raise DataError(f"{folder / CONFIG} targets {target}, for which there are no matrices; files are missing")
    for name in names:
        if not any(pattern.fullmatch(name) for pattern in wanted.values()):
            raise DataError(
                f"{folder} has matrices for {name}, which {CONFIG} does not target; they do not belong together"
            )
