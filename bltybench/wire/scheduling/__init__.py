"""When sockets are read and responses are parsed, and the timers for both."""
