"""The loader: from shards on disk to batches of clips."""
