"""The miniature world: a tiny policy and a tiny judge, built and pre-trained from scratch (docs/laptop_models.md)."""
