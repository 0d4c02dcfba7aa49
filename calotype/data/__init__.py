"""The dataset, its builder, the pixel cache and `collate`: from rows to batches."""
