"""The audio column: waveforms and log-mel patches."""
