"""Streams: how each kind of column becomes tensors of a batch."""
