"""The report of a run as one self-contained HTML page: what is on it, and how it is drawn."""
