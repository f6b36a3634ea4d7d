"""Errors that a user can mend. Each message is one line: what is wrong, where, and what to do about it."""


class SpeciaRLError(Exception):
    """Base of every error that SpeciaRL raises for a person to read."""


class ConfigError(SpeciaRLError):
    """A configuration key has a wrong value, or is unknown."""


class DataError(SpeciaRLError):
    """A data file is missing, or a row or column of it is not what training reads."""


class VerifierStartError(SpeciaRLError):
    """The verifier cannot be used: it failed its start-up probe or never came up."""


class VerifierOutage(SpeciaRLError):
    """The verifier gave no verdict for longer than the run may wait."""


class FailureBudgetExceeded(SpeciaRLError):
    """More rollouts of one step failed, went unscored or were filtered out than the run may lose."""


class WorkerLost(SpeciaRLError):
    """An agent-loop worker died or hangs, and with it the rollouts that it ran."""


class WeightTransferStuck(SpeciaRLError):
    """The policy's weights did not reach the rollout servers in time."""


class WeightTransferFailed(SpeciaRLError):
    """The policy's weights did not reach the rollout servers, because one of them or a trainer worker failed."""


class DataPrepError(SpeciaRLError, ValueError):
    """Input of `data_prep` is bad or a source is missing; the message names the cause and the remedy."""
