"""Does an API behave as the reference says? Asked with httpx, one expectation at a time."""
