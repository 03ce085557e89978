"""Blocksworld: instances in PDDL, the four actions, and plans read from a model's text.

The domain is PlanBench's `blocksworld-4ops` (arXiv 2206.10498). What counts as a plan in a text:

1. Where there are tags, the first block that holds an action: from `[PLAN]` to the next tag or the
   end, or from the start to a `[PLAN END]` that nothing opens. Later blocks are further attempts
   and do not count. Without tags it is the whole text; a plan told again and again counts once.
2. An action opens a line, after list marks, and the line may go on with more (`. Then put down b`).
   Where no line opens so, it may come after `First,`, `Then` and the like.
3. What opens with an action's name and is none (`stack the red block on the table`, a block of
   unknown name) breaks the plan. Passed over are `Pick up a block`, from the prompt's own list,
   and `put down nothing`.
4. Everything else is comment: other lines, a line in parentheses, what follows an action after
   punctuation, and, once an action has a number, every line that has none.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from marco.errors import UserError

Fact = tuple[str, ...]  # ("on", "b", "c"), ("handempty",)
Action = tuple[str, ...]  # ("stack", "a", "b")

COLOURS = {"red": "a", "blue": "b", "orange": "c", "yellow": "d", "white": "e", "magenta": "f"}
ARITY = {"clear": 1, "handempty": 0, "holding": 1, "on": 2, "ontable": 1}

# What each action needs and what it makes true, of blocks x and y; what it needs it also ends.
ACTIONS: dict[str, tuple[tuple[Fact, ...], tuple[Fact, ...]]] = {
    "pick-up": (
        (("ontable", "x"), ("clear", "x"), ("handempty",)),
        (("holding", "x"),),
    ),
    "put-down": (
        (("holding", "x"),),
        (("ontable", "x"), ("clear", "x"), ("handempty",)),
    ),
    "stack": (
        (("holding", "x"), ("clear", "y")),
        (("on", "x", "y"), ("clear", "x"), ("handempty",)),
    ),
    "unstack": (
        (("on", "x", "y"), ("clear", "x"), ("handempty",)),
        (("holding", "x"), ("clear", "y")),
    ),
}
BLOCKS = {"pick-up": 1, "put-down": 1, "stack": 2, "unstack": 2}  # how many an action names
DENIALS = {
    "clear": "{} is not clear",
    "handempty": "the hand is not empty",
    "holding": "{} is not held",
    "on": "{} is not on {}",
    "ontable": "{} is not on the table",
}


@dataclass(frozen=True)
class Instance:
    """A problem: the names of its blocks, the facts at the start, and those to be reached."""

    blocks: tuple[str, ...]
    initial: frozenset[Fact]
    goal: frozenset[Fact]


@dataclass(frozen=True)
class Plan:
    """The actions that a text tells, up to a text that should be an action and is none."""

    actions: tuple[Action, ...]
    broken: str | None

    def __str__(self) -> str:
        told = [f"({' '.join(action)})" for action in self.actions]
        return " ".join(told if self.broken is None else [*told, self.broken])


def execute(actions: Sequence[Action], instance: Instance) -> tuple[bool, str]:
    """Whether every action is legal and the last state holds the goal, and why.

    A plan need not be a shortest one, and the hand may end full.
    """
    state = set(instance.initial)
    for number, action in enumerate(actions, 1):
        if denial := _denial(action, state, instance):
            return False, f"action {number}, {' '.join(action)}: {denial}"
        needs, makes = _facts_of(action)
        state.difference_update(needs)
        state.update(makes)
    length = f"{len(actions)} action{'s' * (len(actions) != 1)}"
    if missed := sorted(instance.goal - state):
        return False, f"goal not reached in {length}: {_deny(missed[0])}"
    return True, f"goal reached in {length}"


def _denial(action: Action, state: set[Fact], instance: Instance) -> str | None:
    """Why an action is not legal in a state; None where it is."""
    if unknown := [block for block in action[1:] if block not in instance.blocks]:
        return f"there is no block {unknown[0]}"
    needs, _ = _facts_of(action)
    return next((_deny(fact) for fact in needs if fact not in state), None)


def _deny(fact: Fact) -> str:
    return DENIALS[fact[0]].format(*fact[1:])


def _facts_of(action: Action) -> tuple[list[Fact], list[Fact]]:
    """What an action needs, and what it makes true."""
    blocks = dict(zip("xy", action[1:], strict=False))
    needs, makes = (
        [(what, *(blocks[name] for name in of)) for what, *of in facts]
        for facts in ACTIONS[action[0]]
    )
    return needs, makes


def read_instance(pddl: str) -> Instance:
    """The instance of a PDDL text that has `:objects`, `:init` and `:goal`, in this order.

    UserError says what is wrong: an unknown fact, a block without a colour, an impossible start.
    """
    text = " ".join(re.sub(r";[^\n]*", "", pddl).lower().split())
    _, objects_found, rest = text.partition("(:objects")
    objects, _, rest = rest.partition(")")
    _, init_found, rest = rest.partition("(:init")
    init, goal_found, goal = rest.partition("(:goal")
    if not (objects_found and init_found and goal_found):
        raise UserError("no PDDL instance: expected (:objects, (:init and (:goal, in this order")
    blocks = tuple(objects.split())
    if unnamed := sorted(set(blocks) - set(COLOURS.values())):
        known = ", ".join(COLOURS.values())
        raise UserError(f"block {unnamed[0]!r} has no colour in the task's wording: only {known}")
    instance = Instance(blocks, _conjunction(init, blocks), _conjunction(goal, blocks))
    if instance.initial != _whole_state(instance):
        raise UserError("(:init is no state: each block in one place, with what is clear by that")
    if not instance.goal:
        raise UserError("(:goal is empty")
    return instance


def write_instance(instance: Instance) -> str:
    """The instance as one line of PDDL, the same for the same instance."""
    objects = " ".join(instance.blocks)
    init, goal = (
        " ".join(f"({' '.join(fact)})" for fact in sorted(facts))
        for facts in (instance.initial, instance.goal)
    )
    head = f"(define (problem blocks) (:domain blocksworld-4ops) (:objects {objects})"
    return f"{head} (:init {init}) (:goal (and {goal})))"


def _conjunction(section: str, blocks: Sequence[str]) -> frozenset[Fact]:
    """The facts of a section, around which only `(and ...)` and closing brackets may stand."""
    facts = {tuple(fact.split()) for fact in re.findall(r"\(([^()]*)\)", section)} - {("and",)}
    for fact in facts:
        known = len(fact) > 0 and ARITY.get(fact[0]) == len(fact) - 1
        if not known or not set(fact[1:]) <= set(blocks):
            raise UserError(f"({' '.join(fact)}) is no fact about the instance's blocks")
    around = re.sub(r"\([^()]*\)", " ", section).replace("(and ", "", 1).strip(" )")
    if around:
        raise UserError(f"expected facts, or (and ...) of facts, got {around[:40]!r}")
    return frozenset(facts)


def _whole_state(instance: Instance) -> frozenset[Fact] | None:
    """The state that the places of the blocks make; None unless every block has one place."""
    places = sorted(fact for fact in instance.initial if fact[0] in ("on", "ontable", "holding"))
    covered = [fact[2] for fact in places if fact[0] == "on"]
    held = [fact[1] for fact in places if fact[0] == "holding"]
    if sorted(fact[1] for fact in places) != sorted(instance.blocks):
        return None
    if len(set(covered)) < len(covered) or len(held) > 1:
        return None
    clear = [("clear", block) for block in instance.blocks if block not in (*covered, *held)]
    return frozenset([*places, *clear] + [("handempty",)] * (not held))


# Reading plans: of a casefolded text, without `*` and quotes, its lines with single blanks. The
# loops of the patterns are possessive or bounded: linear time.
TAG = re.compile(r"\[plan( end)?\]")
NAMING = re.compile(r"^.*(?:pick|put|stack).*$", re.MULTILINE)  # a million empty lines cost nothing
MARKUP = str.maketrans({"_": " "} | dict.fromkeys("*`\"'\u2018\u2019\u201c\u201d"))
MARKS = re.compile(
    r"(?:[-\u2013\u2014+\u2022>#|:.\[\]\s]|\(?\d{1,4}[.):]{0,2}|(?:step|actions?|plan)\b)*+"
)
GLUE = re.compile(r"[ .,;:|>\u2192-]*+")
LEADS = re.compile(
    r"(?:(?:and|then|next|first|firstly|second|third|finally|lastly|now|after that|i|we|you)\b"
    r"[ ,:]*+){0,4}+"
)
COMMENT = re.compile(r" ?(?:$|[-\u2013\u2014\u2192.,;:!?(\[\]/#|])")
NAME = r"(pick[ -]?up|put[ -]?down|unstack|stack)"
BLOCK = rf"(?:the )?(?:block )?({'|'.join(COLOURS)}|[b-f]|a(?! block))\b(?: block)?"
OPENS = re.compile(rf"\(?{NAME}\b(?! ?(?:$|[\d.,:;!?)\u2013\u2014-]))")
NO_BLOCK = re.compile(rf"\(?{NAME} (?:a block|nothing)\b")
FORMS = (
    re.compile(rf"\(?{NAME}[ (]{{1,3}}{BLOCK}(?:[ ,]{{1,3}}{BLOCK})? ?\)"),
    re.compile(rf"(pick[ -]?up) {BLOCK}(?: (?:from|off) (?:the )?table)?"),
    re.compile(rf"(put[ -]?down) {BLOCK}(?: (?:on|onto|to) (?:the )?table)?"),
    re.compile(rf"(stack) {BLOCK},? (?:(?:on|onto|on to|on (?:the )?top of|atop) )?{BLOCK}"),
    re.compile(rf"(unstack) {BLOCK},? (?:(?:from|off|off of|from (?:on |the )?top of) )?{BLOCK}"),
)
SHOWN = 60  # characters of a text that breaks a plan


def read_plan(text: str) -> Plan:
    """The plan that a text tells, by the rules above; no actions where it tells none."""
    text = text.casefold().translate(MARKUP)
    text = re.sub(r"\)[\s,]*+\(", ")\n(", text)  # several actions of PDDL in a line
    parts = TAG.split(text)
    if len(parts) == 1:
        plan = _read(text)
        return Plan(_told_once(plan.actions), plan.broken)
    blocks = [part for end, part in zip(parts[1::2], parts[2::2], strict=True) if end is None]
    if parts[1] is not None:
        blocks.insert(0, parts[0])
    plans = (_read(block) for block in blocks)
    return next((plan for plan in plans if plan.actions or plan.broken), Plan((), None))


def _read(text: str) -> Plan:
    """The actions that open a line, else those behind `Then` and the like."""
    text = "\n".join(NAMING.findall(text))
    for leads in (False, True):
        actions: list[Action] = []
        for action in _actions(text, leads=leads):
            if isinstance(action, str):
                return Plan(tuple(actions), action)
            actions.append(action)
        if actions:
            return Plan(tuple(actions), None)
    return Plan((), None)


def _actions(text: str, *, leads: bool) -> Iterator[Action | str]:
    """The actions in their order; what should be one and is none as a quoted text."""
    numbered = False
    for raw in text.splitlines():
        line = " ".join(raw.split())
        start = _end(MARKS, line, 0)
        has_number = any(mark.isdigit() for mark in line[:start])
        if numbered and not has_number:
            continue
        start = _end(LEADS, line, start) if leads else start
        numbered = numbered or (has_number and OPENS.match(line, start) is not None)
        yield from _actions_of_line(line, start)


def _actions_of_line(line: str, start: int) -> Iterator[Action | str]:
    while OPENS.match(line, start) and not NO_BLOCK.match(line, start):
        found = next((match for form in FORMS if (match := form.match(line, start))), None)
        if found is None and line[start] == "(":
            return
        action, end = _action(found) if found else None, found.end() if found else start
        following = _end(LEADS, line, _end(GLUE, line, end))
        if action is None or not (COMMENT.match(line, end) or OPENS.match(line, following)):
            yield ascii(line[start : start + SHOWN])
            return
        yield action
        start = following


def _action(found: re.Match[str]) -> Action | None:
    """The action that was found; None where it has not as many blocks as it takes."""
    name, *blocks = (group for group in found.groups() if group)
    name = re.sub(r"(pick|put)[ -]?", r"\1-", name)
    blocks = [COLOURS.get(block, block) for block in blocks]
    return (name, *blocks) if len(blocks) == BLOCKS[name] else None


def _told_once(actions: tuple[Action, ...]) -> tuple[Action, ...]:
    """The actions of a plan that is told again and again, once.

    Were it carried out again, it would end in the same state. One action alone is no plan.
    """
    n = len(actions)
    lengths = (length for length in range(2, n // 2 + 1) if n % length == 0)
    return next((actions[:k] for k in lengths if actions[:k] * (n // k) == actions), actions)


def _end(pattern: re.Pattern[str], line: str, start: int) -> int:
    found = pattern.match(line, start)
    return found.end() if found else start
