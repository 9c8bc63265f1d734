"""The caption stage against a real vLLM: speed, prefix cache, trouble, repair."""
