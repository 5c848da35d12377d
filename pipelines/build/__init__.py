"""Building a column: plan, shards, commit, publish."""
