"""Where images come from: local folders, parquet files, the Hub, and the built-in digits, as rows."""
