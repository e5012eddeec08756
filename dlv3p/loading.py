"""Forward to `dlv3p.weights.loading`, for one more version."""

import warnings

from dlv3p.weights.loading import *  # noqa: F403

warnings.warn("dlv3p.loading is now dlv3p.weights.loading; import that", DeprecationWarning, stacklevel=2)
