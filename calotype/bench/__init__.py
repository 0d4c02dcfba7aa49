"""Which cache is worth it: short runs of real training steps with each, and what follows from them."""
