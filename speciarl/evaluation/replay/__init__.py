"""Replay: any reward, noise, number of rollouts or judge over the verdict log of a training or evaluation run."""
