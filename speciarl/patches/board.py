"""Patch board: patches of third-party packages, each with a name, a reason and the exact versions it is for."""

import enum
import importlib.metadata
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import wrapt

logger = logging.getLogger(__name__)


class PatchState(enum.StrEnum):
    """How far a patch has got in this process."""

    WAITING = "waiting"
    """Its module is not imported yet; the patch is applied the moment it is."""
    APPLIED = "applied"
    SKIPPED = "skipped"
    """Another version is installed than the patch was written for: nothing was touched."""


@dataclass(frozen=True)
class Patch:
    """One change to one module of one distribution."""

    name: str
    distribution: str
    """Distribution that is changed, as pip names it."""
    version: str
    """The only public version (no ``+local`` part) that is changed."""
    module: str
    """Dotted name of the changed module."""
    reason: str
    """What goes wrong without the patch, in one sentence."""
    upstream: str
    """The upstream issue or pull request, else the upstream file."""
    apply: Callable[[Any], None]
    """Function that changes the imported module. Must be idempotent."""


def installed_version(distribution: str) -> str | None:
    """Public version of an installed distribution: ``2.11.0`` for ``2.11.0+cpu``; None if it is absent."""
    try:
        return importlib.metadata.version(distribution).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass
class PatchBoard:
    """Board of one process: installs patches and records the state of each."""

    patches: dict[str, Patch] = field(default_factory=dict)
    states: dict[str, PatchState] = field(default_factory=dict)

    def install(self, patch: Patch) -> None:
        """Apply ``patch`` now if its module is imported, else as soon as it is; skip it on another version.

        Deferring keeps ``import verl`` as fast as it was: no module is imported for the sake of being patched.
        """
        if patch.name in self.patches:
            return
        self.patches[patch.name] = patch
        version = installed_version(patch.distribution)
        if version != patch.version:
            self.states[patch.name] = PatchState.SKIPPED
            logger.warning(
                "patch %s is for %s %s, but %s is installed: not applied. Without it: %s See %s",
                patch.name,
                patch.distribution,
                patch.version,
                version or "none",
                patch.reason,
                patch.upstream,
            )
            return
        self.states[patch.name] = PatchState.WAITING

        # Idempotent patches only: a module may have been patched by another board of this process already.
        def on_import(module: Any) -> None:
            patch.apply(module)
            self.states[patch.name] = PatchState.APPLIED

        wrapt.register_post_import_hook(on_import, patch.module)
