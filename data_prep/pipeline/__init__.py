"""Build pipeline: from the samples of readers to parquet files, with prompts, taxonomy and report."""
