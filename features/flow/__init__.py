"""The flow column: optical flow between stored frames."""
