"""Read files without trusting them, and write them completely or not at all."""
