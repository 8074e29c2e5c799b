"""nmc_hw: tools and links for boards."""
