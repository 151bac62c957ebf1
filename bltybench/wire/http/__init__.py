"""One HTTP connection: dialing, TLS, requests, and responses."""
