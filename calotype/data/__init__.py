"""Rows become samples: the dataset, its builder, its memory of pixels, and how samples become a batch."""
