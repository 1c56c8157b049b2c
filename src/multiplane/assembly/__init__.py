"""The only place that knows all rooms: settings, wiring, process layouts."""
