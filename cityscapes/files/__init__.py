"""Files of the suite: read with suspicion, written whole or not at all."""
