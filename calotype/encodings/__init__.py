"""What the frozen models gave, kept: a content-addressed store, and the models behind it."""
