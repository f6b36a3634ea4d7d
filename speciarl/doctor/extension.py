"""Extension checks: does veRL see what we add to it?"""

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Iterator

from speciarl.doctor.finding import Finding, ok, problem, warning
from speciarl.patches.board import PatchState

PLUGIN = "speciarl.plugin"
POLICY = "VERL_USE_EXTERNAL_PLUGINS"


def entry_points() -> Iterator[Finding]:
    """Both plug-ins are declared to veRL and vLLM by an installed distribution."""
    for group, name in (("verl.plugins", "speciarl"), ("vllm.general_plugins", "speciarl_cpu")):
        if not importlib.metadata.entry_points(group=group, name=name):
            yield problem("plug-in " + group, "not declared", "Install the package: pip install --no-deps -e .")


def verl_plugin() -> Iterator[Finding]:
    """``import verl`` loads our plug-in, and every patch fits the installed versions."""
    policy = os.environ.get(POLICY, "auto").strip()
    if policy != "auto" and "speciarl" not in policy.split(","):
        yield problem("veRL plug-in", f"{POLICY}={policy} keeps veRL from loading it", f"unset {POLICY}")
        return
    try:
        importlib.import_module("verl")
        plugin = importlib.import_module(PLUGIN)
    except Exception as error:  # noqa: BLE001 - a broken installation may raise anything; that is the finding
        yield problem("veRL plug-in", f"{type(error).__name__}: {error}", "Reinstall: see the lines above.")
        return
    states = plugin.ACTIVATION.board.states
    skipped = [name for name, state in states.items() if state is PatchState.SKIPPED]
    if skipped:
        remedy = "Install the pinned versions (make setup); docs/patches.md tells what each patch mends."
        yield warning("patches", f"made for other versions, not applied: {', '.join(skipped)}", remedy)
    listed = ", ".join(f"{name} ({state})" for name, state in states.items())
    yield ok("veRL plug-in", f"loaded; patches: {listed}")


def trainer() -> Finding:
    """veRL's V1 trainer package can be imported, and ours registers itself then."""
    try:
        importlib.import_module("verl.trainer.ppo.v1")
    except Exception as error:  # noqa: BLE001 - a broken installation may raise anything; that is the finding
        return problem("trainer", f"{type(error).__name__}: {error}", "Reinstall: see the lines above.")
    if "speciarl.training.trainer.trainer" in sys.modules:
        return ok("trainer", "registered with veRL")
    return problem("trainer", "veRL's trainer was imported without ours", "Reinstall: pip install --no-deps -e .")


def recipes() -> Finding:
    """Hydra finds the recipes and composes the main one on veRL's own configuration."""
    from hydra import compose, initialize_config_module
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from speciarl.hydra_support.recipe_source import recipe_directory

    directory = recipe_directory()
    names = sorted(path.stem for path in directory.glob("*.yaml"))
    try:
        with initialize_config_module("verl.trainer.config", version_base=None):
            compose("ppo_trainer", overrides=["+recipe=speciarl"])
    except (HydraException, OmegaConfBaseException) as error:
        cause = str(error).splitlines()[0]
        return problem("recipes", f"+recipe=speciarl: {cause}", f"Reinstall; looked in {directory}.")
    return ok("recipes", f"{', '.join(names)} in {directory}")


def laptop_models() -> Finding:
    """The two checkpoints of the laptop run are shipped with the package."""
    from speciarl.hydra_support import resolvers

    try:
        for model in ("policy", "judge"):
            resolvers.package_path(f"laptop/models/{model}/model.safetensors")
    except FileNotFoundError as error:
        remedy = "Reinstall, or train them: docs/laptop_models.md. Other recipes do without."
        return warning("laptop models", str(error), remedy)
    return ok("laptop models", "policy, judge")


def platform(extra: str) -> Finding:
    """veRL trains on what the installed stack is for."""
    import torch
    from verl.plugin.platform import get_platform

    name = get_platform().device_name
    if extra == "cpu":
        if name == "cpu":
            return ok("platform", "cpu: no accelerator; training and rollouts use all cores")
        remedy = "Install the GPU stack: make setup STACK=gpu"
        return problem("platform", f"{name}, but the installed stack is for CPUs", remedy)
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        listed = ", ".join(f"{device.name} {device.total_memory / 2**30:.0f} GiB" for device in devices)
        return ok("platform", f"{name}: {listed}")
    remedy = "On a login node this is as it should be. Else check `nvidia-smi`: CUDA 13 needs driver 580 or newer."
    return warning("platform", f"{name}: torch sees no GPU on this machine", remedy)
