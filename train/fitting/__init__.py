"""Fitting a model: losses, callbacks, checkpoints and distribution strategies."""
