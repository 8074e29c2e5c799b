"""NIR for reader and writer alike: its node types, the rules that make them discrete, and nmc's extension."""
