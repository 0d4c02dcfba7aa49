"""One reader for each form of data files, archives and datasets: a file becomes a `Part`."""
