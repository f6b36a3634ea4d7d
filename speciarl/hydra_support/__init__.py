"""What Hydra learns from us: where recipes are found, and the resolvers that they use."""
