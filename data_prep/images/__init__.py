"""Images of a build: encoding, scaling and duplicates."""
