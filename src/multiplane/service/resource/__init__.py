"""Resource plane: stock of keys, one pool per direction, and the units that name what is taken from it."""
