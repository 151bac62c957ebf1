"""What a check expects of an API. Each module is one group of findings."""
