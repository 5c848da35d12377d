"""Scanning a collection into a manifest."""
