"""Calibration of a judge: how it errs on pairs whose category is known, and a run's numbers without that."""
