"""The tiny policy: its model, the pictures that it learns from, its pre-training and report."""
