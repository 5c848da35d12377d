"""Writing features in other formats: a Parquet table, or YouTube-8M records."""
