"""What a computer gives a program: threads, a clock, files."""
