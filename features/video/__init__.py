"""Video files: the ffmpeg child process, probing, presentation times and picture sizes."""
