"""Entry point ``verl.plugins``: ``import verl`` imports this module, which is how veRL loads plug-ins.

It is the one module that works at import. Nothing else has to be imported for the recipes, the trainer and the CPU
platform to be there.
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
"""The state of this process."""
