"""Agent loop: veRL's worker and manager, with the rollouts of a prompt rewarded as one group."""
