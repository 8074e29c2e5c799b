"""The engines that run general networks: every comparison with Lava and with silicon is made on each."""

ENGINES = ("ticks", "events")
