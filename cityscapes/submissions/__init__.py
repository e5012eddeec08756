"""What the official server takes: how it is built, what it must be, and how it is checked."""
