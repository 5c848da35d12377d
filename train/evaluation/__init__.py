"""Evaluating a trained model on a split."""
