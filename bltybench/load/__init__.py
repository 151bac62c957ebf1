"""The Locust side: users, arrivals, retry, recorder, self-audit, event hooks."""
