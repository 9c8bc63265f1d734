"""The small words of English that say how many, which one, whether at all."""

_COUNTED = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty
"""
NUMBERS = {word: i for i, word in enumerate(_COUNTED.split())} | {"single": 1, "dozen": 12}
QUANTITIES: dict[tuple[str, ...], int | None] = {
    ("a", "pair", "of"): 2,
    ("the", "pair", "of"): 2,
    ("pair", "of"): 2,
    ("a", "couple", "of"): 2,
    ("a", "trio", "of"): 3,
    ("a", "dozen"): 12,
    ("a", "few"): None,
    ("a", "group", "of"): None,
    ("a", "number", "of"): None,
    ("a", "row", "of"): None,
    ("a", "line", "of"): None,
    ("a", "set", "of"): None,
    ("a", "pile", "of"): None,
    ("a", "stack", "of"): None,
    ("a", "bunch", "of"): None,
    ("a", "cluster", "of"): None,
    ("a", "collection", "of"): None,
    ("a", "lot", "of"): None,
    ("lots", "of"): None,
    ("plenty", "of"): None,
    ("dozens", "of"): None,
}
"""Phrases before a noun and the number that they state; None: more than one."""
SOME = {"some", "several", "few", "many", "numerous", "multiple", "various", "countless", "assorted", "more"}
INDEFINITE = {"a", "an", "any", "another", "each", "every"}
DEFINITE = {"the", "this", "that", "these", "those", "both", "all", "its", "their", "his", "her", "our", "'s"}
NEGATIVE = {"no", "zero", "neither", "nor"}
OTHER = {"another", "other", "second", "third", "further", "additional", "more", "different"}
"""Words that say that another one than before is meant."""

COPULAS = {
    "is",
    "are",
    "was",
    "were",
    "be",
    "being",
    "been",
    "appears",
    "appear",
    "looks",
    "look",
    "seems",
    "seem",
    "remains",
    "painted",
    "coloured",
    "colored",
}
PARTICIPLES = {"painted", "coloured", "colored", "in"}
"""Words right behind a noun that give it a colour: a ball painted red, a man in red."""
RELATIVES = {"which", "that", "who"}
PRONOUNS = {"it", "they", "them", "this", "these"}
DEGREES = {
    "very",
    "bright",
    "brightly",
    "dark",
    "light",
    "deep",
    "pale",
    "vivid",
    "mostly",
    "mainly",
    "entirely",
    "all",
    "completely",
    "also",
    "both",
    "just",
    "slightly",
    "directly",
    "right",
    "immediately",
    "standing",
    "located",
    "positioned",
    "placed",
    "clearly",
    "partly",
    "partially",
}
"""Words that may stand between a verb and what it says, and change nothing about who is meant."""
PREPOSITIONS = {
    "of",
    "in",
    "on",
    "at",
    "by",
    "to",
    "with",
    "near",
    "beside",
    "besides",
    "under",
    "beneath",
    "below",
    "above",
    "over",
    "behind",
    "beyond",
    "before",
    "between",
    "among",
    "amid",
    "against",
    "along",
    "alongside",
    "across",
    "around",
    "past",
    "from",
    "into",
    "onto",
    "inside",
    "outside",
    "next",
    "opposite",
    "towards",
    "toward",
    "through",
    "off",
    "than",
    "without",
    "for",
    "as",
    "like",
}
CONJUNCTIONS = {"and", "or", "nor", "but", "while", "whereas", "although", "though", "because", "so", "yet", "plus"}
CLAUSE_STARTS = {"while", "whereas", "but", "although", "though"}
VERBS = {
    "stands",
    "stand",
    "sits",
    "sit",
    "lies",
    "lie",
    "lays",
    "rests",
    "rest",
    "hangs",
    "hang",
    "rises",
    "rise",
    "floats",
    "float",
    "leans",
    "lean",
    "has",
    "have",
    "had",
    "shows",
    "show",
    "contains",
    "contain",
    "features",
    "feature",
    "includes",
    "include",
    "depicts",
    "depict",
    "reads",
    "read",
    "says",
    "say",
    "holds",
    "hold",
    "can",
    "will",
    "does",
    "do",
    "did",
    "see",
    "seen",
    "there",
    "where",
    "when",
    "not",
    "waits",
    "parked",
    "towers",
}
STOPS = PREPOSITIONS | CONJUNCTIONS | COPULAS | RELATIVES | VERBS | {"quotation", ",", ":", "(", ")", "—", "–", "it"}
"""Words that no noun phrase goes over."""
HAVING = VERBS | COPULAS | {"any", "actually", "really", "visible", "present", "a", "an", "one"}
"""What may stand between `not` and the noun that it denies."""
ABSENCES = (
    ("without",),
    ("lacks",),
    ("lacking",),
    ("lack", "of"),
    ("absence", "of"),
    ("free", "of"),
    ("devoid", "of"),
    ("empty", "of"),
    ("instead", "of"),
    ("rather", "than"),
    ("no", "sign", "of"),
    ("no", "signs", "of"),
    ("no", "trace", "of"),
    ("neither",),
    ("nor",),
)
"""Words before a noun phrase that say that it is not there."""
LIKENESSES = (
    ("shaped", "like"),
    ("resembling",),
    ("resembles",),
    ("resemble",),
    ("reminiscent", "of"),
    ("size", "of"),
    ("shape", "of"),
)
"""Words before a noun phrase that is only compared with."""
LIMITS = (("no", "more", "than"), ("no", "fewer", "than"), ("no", "less", "than"), ("not", "only"), ("no", "longer"))
"""A `no` or `not` that denies nothing."""
