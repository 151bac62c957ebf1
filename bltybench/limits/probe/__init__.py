"""The probe plan for the request limit, and the steps that experiments yield."""
