"""Serialized clips: TFRecord framing, SequenceExample messages, key names, and arrays of features."""
