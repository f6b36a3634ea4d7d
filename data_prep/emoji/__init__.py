"""Emoji world: the miniature world's concepts, their drawings, and the dataset made of them."""
