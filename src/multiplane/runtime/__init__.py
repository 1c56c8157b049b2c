"""Drivers of the ports: clocks, bus, channels, stores, HTTP. The only room that performs I/O."""
