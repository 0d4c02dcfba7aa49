"""axe-core on a page of a real browser: the faults of accessibility that a program can find."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.sync_playwright import Axe

SERIOUS = ("serious", "critical")


def serious_faults(page: Any) -> list[str]:
    """The serious and critical faults of a page of playwright, each with the elements that have it; empty if none."""
    found = Axe().run(page).response["violations"]
    return [
        f"{fault['id']} ({fault['impact']}): {fault['help']}: {[node['html'][:120] for node in fault['nodes'][:5]]}"
        for fault in found
        if fault["impact"] in SERIOUS
    ]
