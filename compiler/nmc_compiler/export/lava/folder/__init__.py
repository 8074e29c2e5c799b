"""Sources of the exported folder, copied as they are: Python 3.10, lava-nc 0.10.0, nothing of nmc."""
