"""Standard interfaces as tables over the doors: method, path, in, out, handler."""
