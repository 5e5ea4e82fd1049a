"""The read path: which files a read takes, and their rows as a stream."""
