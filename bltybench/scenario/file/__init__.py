"""Reading scenarios.toml: parsing, validation messages, and resolution."""
