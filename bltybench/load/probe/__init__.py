"""The rate-limit probe as a Locust user."""
