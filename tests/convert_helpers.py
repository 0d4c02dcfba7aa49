"""What the tests of converting share."""

from calotype.convert import FORMS, plan_conversion, run_conversion
from calotype.images import ImageReader
from calotype.manifest import load_manifest


def load(path, to="imagefolder", **options):
    """Every row, with the options that reading a form whole takes."""
    options = {"missing_captions": "empty", "columns": {"rejected": None}} | dict(FORMS[to].reading()) | options
    return load_manifest(path, **options)


def convert(path, destination, to, *, came_as="imagefolder", **options):
    plan = plan_conversion(load(path, came_as), destination, to=to, **options)
    run_conversion(plan)
    return plan


def facts(manifest):
    """All of each row but its further columns, with its image's bytes."""
    reader = ImageReader()
    return [(row.id, row.captions, row.weight, row.width, row.height, reader.read_bytes(row.image)) for row in manifest]
