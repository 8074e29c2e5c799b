"""nmc_compiler: from a trained network to a mapped Program."""
