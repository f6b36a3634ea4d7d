"""Hydra support: the place of the recipes on Hydra's search path, and the resolvers that they use."""
