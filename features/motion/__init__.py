"""The motion column: motion vectors stored by the video codec."""
