"""What travels over HTTP, beside the doors: routes and replies, and the message structs of the standards."""
