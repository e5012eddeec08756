"""Summarize in one line how the tensors of two networks differ."""

from collections.abc import Mapping, Sized

from torch import Tensor

from cityscapes.files.untrusted import sanitize

COUNTS = "num_batches_tracked"


def list_differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], *, limit: int = 3) -> str:
    """Summarize in one line how the names, shapes and types of two state dicts differ; "" when they do not.

    Of each kind of difference the first `limit` are named, and all are counted.

    Batch norm's `num_batches_tracked` may be missing on either side: older files lack it, no network of ours reads it.
    """
    both = {key: (value, found[key]) for key, value in expected.items() if key in found}
    kinds = {
        "missing": [sanitize(key) for key in expected if key not in found and not key.endswith(f".{COUNTS}")],
        "unknown": [sanitize(key) for key in found if key not in expected and not _is_count(key, expected)],
        "of another shape": [
            f"{sanitize(key)} {sanitize(tuple(theirs.shape))} for {tuple(ours.shape)}"
            for key, (ours, theirs) in both.items()
            if ours.shape != theirs.shape
        ],
        "not in floating point, as in a quantized network": [
            f"{sanitize(key)} holds {theirs.dtype}"
            for key, (ours, theirs) in both.items()
            if ours.is_floating_point() and not theirs.is_floating_point()
        ],
    }
    return ", ".join(
        f"{entries(keys)} {what} ({', '.join(keys[:limit])}{', ...' if len(keys) > limit else ''})"
        for what, keys in kinds.items()
        if keys
    )


def entries(found: Sized) -> str:
    """Return how many entries there are: "1 entry", "2 entries"."""
    return f"{len(found)} {'entry' if len(found) == 1 else 'entries'}"


def _is_count(key: str, expected: Mapping[str, Tensor]) -> bool:
    """Return whether an entry is the batch count of an expected norm."""
    return key.endswith(f".{COUNTS}") and key.removesuffix(COUNTS) + "running_mean" in expected
