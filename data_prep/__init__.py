"""Turn public artwork and facts into the parquet files that veRL trains on."""
