"""Selection: which samples of a dataset are used, by class, count and seed."""
