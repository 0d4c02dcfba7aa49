"""The indexes of tar archives and LMDB environments: the byte range or key of each member."""
