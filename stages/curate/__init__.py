"""Engines that choose among images by their vectors and hashes: plain arrays in and out, no shards, no Ray."""
