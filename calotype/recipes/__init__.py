"""Training recipes: short loops to read, to run and to take apart."""
