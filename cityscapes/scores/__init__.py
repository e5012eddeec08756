"""The official scores: counted, averaged, and read from anyone's files."""
