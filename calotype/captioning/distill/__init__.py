"""Distilling: a small captioner learns from what a large one, or a dataset, says; a short loop to read."""
