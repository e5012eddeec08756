"""Forward to `dlv3p.jupyter.demo`, for one more version."""

import warnings

from dlv3p.jupyter.demo import *  # noqa: F403

if __name__ == "__main__":
    from cityscapes.errors import run_command

    run_command(main)  # noqa: F405
else:
    warnings.warn("dlv3p.demo is now dlv3p.jupyter.demo; import that", DeprecationWarning, stacklevel=2)
