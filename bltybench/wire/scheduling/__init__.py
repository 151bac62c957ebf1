"""When sockets are read and responses parsed, and the timers for it."""
