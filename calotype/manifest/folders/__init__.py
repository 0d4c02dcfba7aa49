"""A folder of images: its listing, its caption files and metadata files, and what is left out."""
