"""Public weights files: read safely, recognised by their names, brought into our networks."""
