"""Control plane of the fabric: routes of key, and plans for shared states. Pure."""
