"""Data preparation: public datasets or your own images as the parquet files that veRL trains on."""
