"""Plug-in: veRL's entry point ``verl.plugins``, imported by ``import verl`` itself.

The one module that does its work at import, because veRL loads plug-ins by importing them. It alone brings recipes,
trainer and CPU platform.
"""

import sys

from speciarl.activation import Activation, activate


def _activate_loudly() -> Activation:
    # veRL logs the failure of a plug-in at DEBUG level only, and the run then dies later of something else.
    try:
        return activate()
    except Exception as error:
        print(
            f"speciarl: the veRL plug-in failed ({type(error).__name__}: {error}); "
            "recipes, trainer and CPU platform are missing in this process. Run `speciarl doctor`.",
            file=sys.stderr,
        )
        raise


ACTIVATION = _activate_loudly()
"""What was set up in this process."""
