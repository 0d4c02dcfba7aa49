"""One file for each family of models; a row of `calotype/models/spec.py` names the class it needs."""
