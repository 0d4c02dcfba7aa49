"""calotype: from a folder of pictures to training batches for text-to-image models."""
