"""scenarios.toml as typed, checked tables; and the prompts, lengths and arrivals drawn from them."""
