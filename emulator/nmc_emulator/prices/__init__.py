"""Price profiles as YAML; `nmc_emulator.price_profile` reads them. Data only."""
