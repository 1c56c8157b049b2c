"""The digital twin: a world that answers at the doors of `api.device` as real devices would."""
