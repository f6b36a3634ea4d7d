"""Loading what later actors need while nothing else can go on."""

import ray

ACTORS = 2
"""veRL starts its load balancer and the agent-loop workers one after the other, when the rollout servers are up."""


@ray.remote(num_cpus=0)
def _load_stack() -> None:
    import speciarl.training.agent_loop  # noqa: F401


def begin() -> None:
    """Have idle Ray processes import the stack now, some seconds' work each; Ray gives them to actors that come later.

    The rollout servers load in single file, on one core each, which leaves the time for this. Nothing depends on it: an
    actor that gets another process imports for itself.
    """
    for _ in range(ACTORS):
        _load_stack.remote()
