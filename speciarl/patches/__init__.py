"""Small patches of veRL, each for one version, explained in docs/patches.md; and the board that applies them."""
