"""One report on a dataset before any GPU work: files, pixels, duplicates, captions, plan, cost."""
