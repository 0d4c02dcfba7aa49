"""What every package stands on: random streams, files, small caches on disk, the pool of Ray actors."""
