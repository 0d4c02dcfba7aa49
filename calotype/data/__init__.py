"""From rows to batches: the dataset, its builder, the pixel cache and `collate`."""
