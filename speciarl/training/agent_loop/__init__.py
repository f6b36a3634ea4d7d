"""veRL's agent-loop worker and manager, with prompts whose rollouts are judged as one group."""
