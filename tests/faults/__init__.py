"""Every call of the core to the system fails once, and nothing may come of it but an error."""
