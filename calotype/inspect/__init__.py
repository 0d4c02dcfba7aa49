"""Looks at a dataset through the very pipeline that trains: what was found, what a batch holds, how it looks."""

from calotype.inspect.sheet import contact_sheet
from calotype.inspect.summary import Summary, summarise

__all__ = ["Summary", "contact_sheet", "summarise"]
