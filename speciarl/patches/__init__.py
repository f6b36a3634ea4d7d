"""Patches of veRL, each small and for one version, explained in docs/patches.md; and the board that applies them."""
