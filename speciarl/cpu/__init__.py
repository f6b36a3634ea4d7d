"""CPU stack: veRL and vLLM on machines without an accelerator; does nothing anywhere else."""
