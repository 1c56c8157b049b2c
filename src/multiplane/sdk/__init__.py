"""What an application imports to ask a network for service units."""
