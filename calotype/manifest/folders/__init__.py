"""Reads a folder of images: its listing, caption files, metadata files, and the files to leave out."""
