"""The probe against limiters that others wrote, and what it answered about them."""
