"""Reads claims out of captions.

No model reads the caption. Noun phrases are found by a vocabulary, and told apart by the ways in which English does it:
`a ball` is a new one, `the ball` one that was named, `two balls, one red and one blue` are two; `no ball` is none.
docs/evaluating.md says what is understood and what is not.
"""

from fusion.evaluate.claims import Claims
from fusion.evaluate.lexicon import Lexicon
from fusion.evaluate.mentions import settle
from fusion.evaluate.story import Story
from fusion.evaluate.vocabulary import Vocabulary
from fusion.evaluate.words import quotes, sentences


class ClaimReader:
    """Reads captions by a vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._lexicon = Lexicon(vocabulary)

    def read(self, caption: str) -> Claims:
        """Claims of a caption. Any text can be read; what is not understood is passed over."""
        story = Story()
        for sentence in sentences(caption):
            story.tell(sentence, settle(sentence, self._lexicon.items(sentence)))
        return story.claims(quotes(caption))
