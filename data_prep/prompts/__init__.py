"""Prompt templates, one text file each: what the model is asked and the form in which it answers."""
