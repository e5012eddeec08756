"""Forward to `dlv3p.data.write_shards`, for one more version."""

import warnings

from dlv3p.data.write_shards import *  # noqa: F403

if __name__ == "__main__":
    from cityscapes.errors import run_command

    run_command(main)  # noqa: F405
else:
    warnings.warn("dlv3p.shards is now dlv3p.data.write_shards; import that", DeprecationWarning, stacklevel=2)
