"""Running Beam graphs: runners, local worker processes and progress."""
