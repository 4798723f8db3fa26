"""What is built and how the source is laid out: libraries, instruction sets, rooms, the map in CONTRIBUTING."""
