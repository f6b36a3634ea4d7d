"""Checks of an installation and its machine, each with a remedy: ``speciarl doctor``."""

from speciarl.doctor.examine import examine
from speciarl.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]
