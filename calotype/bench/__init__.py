"""Recommend a cache: run short trainings of real steps with each strategy, and compare their times."""
