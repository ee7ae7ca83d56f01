"""The leaderboard as one HTML page that needs no network and trusts no text."""
