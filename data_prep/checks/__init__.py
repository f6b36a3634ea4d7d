"""What a finished file is held against, and how it can be looked at."""
