"""The rows of a table: which column is what, image references, embedded images, numbers and flags."""
