"""A dataset in another form: nothing lost, nothing re-encoded, and what a form can't hold is said before."""

from __future__ import annotations

from calotype.convert.form import Finding, Form, Images
from calotype.convert.forms import FORMS
from calotype.convert.job import ConvertReport, run_conversion
from calotype.convert.plan import ConvertPlan, plan_conversion
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
