"""Predict: asks models the questions of test sets and keeps every answer."""
