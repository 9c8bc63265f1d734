"""The engine: whatever answers the OpenAI chat API, a vLLM server that we start or one that somebody else runs.

Started, watched and ended by `server` and `guardian`; asked by `client`, which spreads questions over `endpoints` at
the `pace` that a host allows; `engine` is all of it behind one door.
"""

from fusion.engine.answers import Answer, BadInputError, Draw, Failure, Question
from fusion.engine.client import ChatClient, Talk
from fusion.engine.engine import Engine
from fusion.engine.sampling import SamplingSection, request_body
from fusion.engine.section import EngineSection

__all__ = [
    "Answer",
    "BadInputError",
    "ChatClient",
    "Draw",
    "Engine",
    "EngineSection",
    "Failure",
    "Question",
    "SamplingSection",
    "Talk",
    "request_body",
]
