"""The review page: a local web server to look through a dataset, edit captions and reject images."""
