"""From samples of a reader to Parquet files, with prompts, taxonomy and report."""
