"""Models of an evaluation: resolved to files, fingerprinted, and their adapters proved."""
