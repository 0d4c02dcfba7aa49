"""A report of a check with something of everything, for the tests of how it is shown."""

from calotype.check.report import (
    CacheCost,
    CaptionFacts,
    PlanFacts,
    RemainderFacts,
    Report,
    TokenFacts,
    finding,
)


def example(**changes):
    policies = (
        RemainderFacts(policy="short", batches=3, samples=10, left_out=0, repeated=0, short_batches=1),
        RemainderFacts(policy="repeat", batches=3, samples=12, left_out=0, repeated=2, short_batches=0),
        RemainderFacts(policy="drop", batches=2, samples=8, left_out=2, repeated=0, short_batches=0),
    )
    values = {
        "source": "photos",
        "root": "/data/photos",
        "model": "flux.1-dev",
        "made": "2026-01-02T03:04:05+00:00",
        "images": 10,
        "held_out": 0,
        "deep": True,
        "findings": (
            finding("truncated", "a.jpg", "the JPEG ends without its end marker"),
            finding("same_file", "b.jpg", "the same 1,234 bytes", others=("c.jpg", "d.jpg")),
            finding("alpha", "e.png", "may be transparent"),
        ),
        "captions": CaptionFacts(
            captions=10,
            images_without=0,
            images_with_several=0,
            distinct=9,
            characters=(4, 20, 99),
            trigger="sks",
            trigger_in=10,
        ),
        "tokens": (
            TokenFacts(
                option="t5_tokenizer_path",
                key="t5_text_tokens",
                limit=512,
                shortest=4,
                median=30,
                longest=600,
                cut=1,
                histogram=((1, 64, 8), (65, 512, 1), (513, 600, 1)),
            ),
        ),
        "plan": PlanFacts(
            batch_size=4,
            world_size=1,
            remainder="short",
            buckets=((512, 512, 6), (448, 576, 4)),
            samples=10,
            batches=3,
            policies=policies,
        ),
        "cost": (
            CacheCost(level="none", place="", bytes=None, fill_seconds=None, epoch_seconds=1.5, note="measured"),
            CacheCost(
                level="pixel_cache", place="memory", bytes=7_864_320, fill_seconds=1.5, epoch_seconds=0.2, note="m"
            ),
        ),
        "not_checked": ("images shared with a validation set",),
    }
    return Report(**(values | changes))
