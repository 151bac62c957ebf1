"""The records of workers that do not see the run's directory: sent over Locust's connection to its owner."""
