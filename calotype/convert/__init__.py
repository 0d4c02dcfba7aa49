"""Convert a dataset to another format. Image bytes are never re-encoded; what a format can't hold is reported first."""

from __future__ import annotations

from calotype.convert.form import Finding, Form, Images
from calotype.convert.plan import ConvertPlan, plan_conversion
from calotype.convert.registry import FORMS
from calotype.convert.run import ConvertReport, run_conversion
from calotype.convert.source import open_source
from calotype.convert.verify import Difference, VerifyReport, verify_conversion

__all__ = [
    "FORMS",
    "ConvertPlan",
    "ConvertReport",
    "Difference",
    "Finding",
    "Form",
    "Images",
    "VerifyReport",
    "open_source",
    "plan_conversion",
    "run_conversion",
    "verify_conversion",
]
