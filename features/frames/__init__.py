"""The frames column: JPEG frames decoded from a video."""
