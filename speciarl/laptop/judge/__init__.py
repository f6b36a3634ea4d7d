"""The tiny judge: its model, the pairs that it learns from, its pre-training and tests."""
