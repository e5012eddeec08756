"""The machine underneath: devices, processes, progress."""
