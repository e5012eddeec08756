"""Check that the packages of an optional extra of pyproject.toml are installed before they are imported."""

from collections.abc import Sequence
from importlib.util import find_spec

from cityscapes.errors import MachineError


def require(purpose: str, packages: Sequence[str], extra: str) -> None:
    """Raise MachineError, which says what to install, unless all `packages` that `purpose` needs are installed."""
    if missing := missing_packages(packages):
        raise MachineError(f"{purpose} needs {' and '.join(missing)}; install with: pip install 'dlv3p[{extra}]'")


def missing_packages(packages: Sequence[str]) -> list[str]:
    """Return the packages that are not installed, by import name."""
    return [name for name in packages if find_spec(name) is None]
