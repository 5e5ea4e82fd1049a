"""What several test packages use: token mint, key server."""
