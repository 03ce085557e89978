"""Thoughts without tags: a reply that thinks aloud from end to end, and never comes to an answer.

For tasks where whatever is said is the answer (instructions), such a reply would count as one:
"Okay, the user wants a translation. Let me think. Wait, I should consider the register."

It is taken for a thought alone where all of this holds, so that what may be a reply is one:

1. Its first sentence opens as a thought does ("Okay, the user", "Alright, so I need to", "First, I
   should", "好的，用户").
2. It speaks of the user, of the instructions or of the response as one does to oneself ("the user",
   "the prompt", "the constraints", "用户"): who replies says "you".
3. Every paragraph holds a sentence that thinks; one that does not may be the reply.
4. The last sentence thinks; what stands after the last one that does may be the reply.

Openers are English and Chinese, the languages that models think in. Linear time.
"""

import re

from marco.tasks.answers import final_part

# Every quantifier is bounded or runs over a class that its successor excludes: linear time.
OPENING = re.compile(
    r"(?:(?:okay|ok|alright|all right|hmm+|well|right|now|so|first|firstly)[,.!…]{0,3} {1,2}){1,3}"
    r"(?:the user\b|(?:i need|i have|i'm supposed|i'm asked|i'm trying) to\b|i should\b|i must\b"
    r"|i've got\b|let me\b|let's (?:see|think|try|start|break|tackle)\b)"
    r"|the user (?:wants|asks|asked|is asking|has asked|would like|expects) me\b"
    r"|(?:好的?|好吧|嗯+|首先|那么|现在)[，,。](?:首先|那么|现在)?[，,]?(?:用户|我需要|我得|我应该|让我)"
    r"|用户(?:让我|要我|要求我|希望我|想让我|问我)",
    re.IGNORECASE,
)
ABOUT = re.compile(
    r"\bthe user\b|\bthe (?:instructions?|prompt|request|requirements?|constraints?|response)\b"
    r"|\bmy (?:response|reply|answer)\b|用户",
    re.IGNORECASE,
)
THINKS = re.compile(
    r"^\W{0,9}(?:wait|hmm+|okay|ok|alright|alternatively|actually|maybe|perhaps|but wait|hold on)\b"
    r"|\bthe user (?:wants|asks|asked|said|says|also|mentioned|specified|needs|might|is|has)\b"
    r"|\b(?:i|we) (?:need|have|want) to\b|\b(?:i|we) (?:should|must|could|might)\b"
    r"|\bi(?:'ll| will| can| think| wonder|'m thinking)\b|\blet me\b|\blet's\b"
    r"|用户(?:想|希望|要求|让|问|说|提到|可能)|我需要|我应该|我得|我可以|我想|让我|等等|等一下",
    re.IGNORECASE,
)
PARAGRAPH = re.compile(r"\n\s*\n")
SENTENCE_END = re.compile(r"\n|(?<=[.!?])[ \t]+|(?<=[。！？])")


def spoken_part(response: str) -> str:
    """What a response says besides its thoughts, tagged or not; empty where it is thoughts alone.

    `answers.final_part`, and nothing where `is_thought_alone` of it.
    """
    text = final_part(response)
    return "" if is_thought_alone(text) else text


def is_thought_alone(text: str) -> bool:
    """Whether a text without tags is thinking from end to end, by the rules above."""
    text = text.strip().replace("’", "'")
    if not OPENING.match(text) or not ABOUT.search(text):
        return False
    paragraphs = PARAGRAPH.split(text)
    last = [sentence for sentence in SENTENCE_END.split(paragraphs[-1]) if sentence.strip()][-1]
    return bool(THINKS.search(last)) and all(
        any(THINKS.search(sentence) for sentence in SENTENCE_END.split(paragraph))
        for paragraph in paragraphs
    )
