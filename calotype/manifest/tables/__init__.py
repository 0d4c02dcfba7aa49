"""Makes rows from a table: meanings of columns, image references, embedded images, numbers and flags."""
