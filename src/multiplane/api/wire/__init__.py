"""Message structs of the standards, shared by the tables that serve them and the SDK that calls them."""
