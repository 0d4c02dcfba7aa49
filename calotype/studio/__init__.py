"""The review page: a local server for one person who looks through a dataset, mends captions and rejects images."""
