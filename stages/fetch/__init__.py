"""Fetching from the open web: one guarded opener, and what img2dataset's downloader is given to work with."""
