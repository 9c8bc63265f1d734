"""What the perceive stages cost over the bare loops of their models: python -m benchmarks.experts"""
