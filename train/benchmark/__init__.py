"""Measuring the throughput of the loader on this host."""
