"""Shows exactly what the model will see: the Loader's own batches, and how each sample came about."""
