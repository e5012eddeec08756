"""What stands where a figure could not be taken: never an estimate, and never a zero."""

NOT_MEASURED = "not measured"
IMPLAUSIBLE = "implausible"


class NotMeasurable(Exception):
    """There is no counter, or no right to read it; the message says which, to stand beside "not measured"."""
