"""Activation: what our plug-in sets up in a process that imports veRL, and the record of it."""

import os
from dataclasses import dataclass, field
from typing import Any

import psutil
import wrapt

from speciarl.cpu import environment, stack
from speciarl.hydra_support import resolvers
from speciarl.patches import verl as verl_patches
from speciarl.patches.board import PatchBoard

TRAINER_PACKAGE = "verl.trainer.ppo.v1"
QUEUE_VARIABLE = "TQ_NUM_THREADS"
QUEUE_THREADS = 8
"""Threads that TransferQueue asks for. With fewer physical cores it would warn of it at every put and get."""


def _register_recipes(hydra: Any) -> None:
    from speciarl.hydra_support import recipe_source

    recipe_source.register()


def _register_trainer(trainer_package: Any) -> None:
    # Importing the module registers the trainer with veRL.
    import speciarl.training.trainer.trainer  # noqa: F401


@dataclass
class Activation:
    """Record of everything the plug-in set up in this process; `speciarl doctor` reports it."""

    on_cpu: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables that were added to the process."""
    board: PatchBoard = field(default_factory=PatchBoard)


def activate() -> Activation:
    """Extend veRL in this process: platform, patches, resolvers, recipes, trainer; returns the record of it.

    Nothing is imported for the sake of being extended: what needs a module waits until something else imports it. That
    keeps the cost to a few milliseconds in the many Ray processes that need only a part.
    """
    activation = Activation(on_cpu=stack.active())
    if activation.on_cpu:
        # Imported here: on GPU installations nothing of the CPU platform is loaded.
        from speciarl.cpu import patches, platform

        # First, since veRL and vLLM read some of these variables when they are imported.
        activation.environment = environment.apply(os.environ)
        platform.register()
        for patch in patches.VERL_PROCESS:
            activation.board.install(patch)
    else:
        # On a CPU it is among the variables above.
        cores = psutil.cpu_count(logical=False)
        if cores and cores < QUEUE_THREADS and QUEUE_VARIABLE not in os.environ:
            activation.environment = {QUEUE_VARIABLE: str(cores)}
            os.environ.update(activation.environment)
    for patch in verl_patches.ALL:
        activation.board.install(patch)
    resolvers.register()
    wrapt.register_post_import_hook(_register_recipes, "hydra")
    wrapt.register_post_import_hook(_register_trainer, TRAINER_PACKAGE)
    return activation
