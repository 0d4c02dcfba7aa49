"""Captions from models: the backends that ask them, the presets that say what for."""
