"""Which samples of a data set are used: classes, counts, seeds."""
