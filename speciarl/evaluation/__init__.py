"""Evaluation: from models and test sets to a report, in four stages: predict, verify, metrics, report."""
