"""Let a run on a CPU read what its steps found as rarely as one on a GPU: once for several of them."""

import pytest

from dlv3p.training.findings import UnreadFindings


def read_every(patch: pytest.MonkeyPatch, steps: int) -> None:
    """Let runs read after so many steps, and at the end of an epoch."""
    make = UnreadFindings.__init__

    def make_rarely_read(unread: UnreadFindings, *arguments: object) -> None:
        make(unread, *arguments)
        unread.every = steps

    patch.setattr(UnreadFindings, "__init__", make_rarely_read)
