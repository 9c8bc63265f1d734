"""The fusion MLLM: its prompt, its engine and client, and the checks of what it says. Knows neither shards nor Ray."""
