"""Many points of one model, and many samples of one run, on several processes or machines."""
