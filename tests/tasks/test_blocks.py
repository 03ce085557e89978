import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marco.errors import UserError
from marco.tasks.blocks import (
    ACTIONS,
    BLOCKS,
    Action,
    Instance,
    execute,
    read_instance,
    read_plan,
    write_instance,
)

Towers = tuple[tuple[str, ...], ...]  # every tower from its bottom to its top


def pddl(towers: Towers, goal: list[tuple[str, str]]) -> str:
    """A PDDL problem with an empty hand."""
    facts = ["(handempty)"]
    for tower in towers:
        facts += [f"(ontable {tower[0]})", f"(clear {tower[-1]})"]
        facts += [f"(on {x} {y})" for y, x in zip(tower, tower[1:], strict=False)]
    blocks = " ".join(sorted(block for tower in towers for block in tower))
    wanted = "\n".join(f"(on {x} {y})" for x, y in goal)
    init = " ".join(facts)
    return f"(:objects {blocks} )\n(:init\n{init}\n)\n(:goal\n(and\n{wanted})\n)"


# c is on b; a, b and d are on the table. Wanted: d on a.
INSTANCE = read_instance(pddl((("a",), ("b", "c"), ("d",)), [("d", "a")]))


def plan(text: str) -> list[Action]:
    return [tuple(action.split()) for action in text.split(", ")]


@pytest.mark.parametrize(
    ("actions", "verdict", "why"),
    [
        # Right: short, by a roundabout way, with the hand full at the end.
        ("pick-up d, stack d a", True, "goal reached in 2 actions"),
        ("unstack c b, put-down c, pick-up d, stack d a", True, "goal reached in 4 actions"),
        ("pick-up d, stack d a, unstack c b", True, "goal reached in 3 actions"),
        # The goal.
        ("pick-up d", False, "goal not reached in 1 action: d is not on a"),
        ("pick-up a, stack a d", False, "goal not reached in 2 actions: d is not on a"),
        ("pick-up a, put-down a, pick-up d", False, "goal not reached in 3 actions: d is not on a"),
        # Every precondition of every action, broken once and alone.
        ("pick-up c", False, "action 1, pick-up c: c is not on the table"),
        ("pick-up b", False, "action 1, pick-up b: b is not clear"),
        ("unstack c b, pick-up d", False, "action 2, pick-up d: the hand is not empty"),
        ("put-down d", False, "action 1, put-down d: d is not held"),
        ("pick-up d, put-down a", False, "action 2, put-down a: a is not held"),
        ("stack d a", False, "action 1, stack d a: d is not held"),
        ("pick-up d, stack d b", False, "action 2, stack d b: b is not clear"),
        ("pick-up d, stack d d", False, "action 2, stack d d: d is not clear"),
        ("unstack c a", False, "action 1, unstack c a: c is not on a"),
        ("pick-up a, stack a c, unstack c b", False, "action 3, unstack c b: c is not clear"),
        ("pick-up d, unstack c b", False, "action 2, unstack c b: the hand is not empty"),
        # A block of another instance.
        ("pick-up e", False, "action 1, pick-up e: there is no block e"),
        ("pick-up d, stack d f", False, "action 2, stack d f: there is no block f"),
        # Nothing after the first illegal action counts.
        ("pick-up c, pick-up d, stack d a", False, "action 1, pick-up c: c is not on the table"),
    ],
)
def test_a_plan_is_carried_out_step_by_step(actions: str, verdict: bool, why: str) -> None:
    assert execute(plan(actions), INSTANCE) == (verdict, why)


def twin(towers: Towers, held: str | None, action: Action) -> tuple[Towers, str | None] | None:
    """An action on towers, written for these tests; None where it is not legal."""
    name, x, *under = action
    if name == "put-down":
        return ((*towers, (x,)), None) if held == x else None
    if name == "pick-up":
        rest = tuple(tower for tower in towers if tower != (x,))
        return (rest, x) if held is None and len(rest) < len(towers) else None
    below = tuple(under)
    for i, tower in enumerate(towers):
        others = towers[:i] + towers[i + 1 :]
        if name == "stack" and held == x and tower[-1:] == below:
            return (*others, (*tower, x)), None
        if name == "unstack" and held is None and tower[-2:] == (*below, x):
            return (*others, tower[:-1]), x
    return None


def twin_reaches(towers: Towers, actions: list[Action], goal: list[tuple[str, str]]) -> bool:
    state: tuple[Towers, str | None] | None = (towers, None)
    for action in actions:
        state = twin(*state, action)
        if state is None:
            return False
    return all(
        any((y, x) in zip(tower, tower[1:], strict=False) for tower in state[0]) for x, y in goal
    )


def every_action(blocks: str) -> list[Action]:
    singles = [(name, x) for name in ("pick-up", "put-down") for x in blocks]
    return singles + [(name, x, y) for name in ("stack", "unstack") for x in blocks for y in blocks]


def shortest(towers: Towers, goal: list[tuple[str, str]], actions: list[Action]) -> list[Action]:
    """A shortest plan, by breadth-first search over the twin."""
    seen, waves = {(frozenset(towers), None)}, [((towers, None), [])]
    while waves:
        following = []
        for state, way in waves:
            if twin_reaches(towers, way, goal):
                return way
            for action in actions:
                after = twin(*state, action)
                if after and (key := (frozenset(after[0]), after[1])) not in seen:
                    seen.add(key)
                    following.append((after, [*way, action]))
        waves = following
    raise AssertionError("every order of blocks can be reached")


@st.composite
def orders(draw: st.DrawFn, blocks: str) -> Towers:
    """Blocks in towers."""
    order = draw(st.permutations(blocks))
    cuts = draw(st.lists(st.booleans(), min_size=len(blocks), max_size=len(blocks)))
    towers: list[tuple[str, ...]] = []
    for block, cut in zip(order, cuts, strict=True):
        towers = [*towers, (block,)] if cut or not towers else [*towers[:-1], (*towers[-1], block)]
    return tuple(towers)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(["ab", "abc", "abcd"]), st.randoms(use_true_random=False))
def test_the_simulator_agrees_with_its_twin(
    data: st.DataObject, blocks: str, rng: random.Random
) -> None:
    towers, wanted = data.draw(orders(blocks)), data.draw(orders(blocks))
    goal = [(x, y) for tower in wanted for y, x in zip(tower, tower[1:], strict=False)]
    if not goal:
        goal = [(blocks[0], blocks[1])]
    instance, actions = read_instance(pddl(towers, goal)), every_action(blocks)
    way = shortest(towers, goal, actions)
    assert execute(way, instance)[0]
    for _ in range(40):
        mutant = list(way)
        for _ in range(rng.randint(1, 3)):
            at = rng.randint(0, len(mutant))
            mutant[at : at + rng.randint(0, 2)] = rng.sample(actions, rng.randint(0, 2))
        assert execute(mutant, instance)[0] == twin_reaches(towers, mutant, goal)


@given(st.data())
def test_an_instance_is_written_as_it_is_read(data: st.DataObject) -> None:
    towers = data.draw(orders("abcdef"))
    instance = read_instance(pddl(towers, [("a", "b"), ("c", "d")]))
    written = write_instance(instance)
    assert read_instance(written) == instance
    assert "\n" not in written
    shuffled = pddl(tuple(reversed(towers)), [("c", "d"), ("a", "b")])
    assert write_instance(read_instance(shuffled)) == written


def test_an_instance_in_pddl() -> None:
    text = """
    (define (problem BW-rand-3) ; a comment (on a b)
    (:domain blocksworld-4ops)
    (:objects A b c )
    (:init (handempty) (ontable a) (on b a)
    (ontable c) (clear b) (clear c) )
    (:goal (and (on C b) (clear c))))
    """
    start = "handempty, ontable a, on b a, ontable c, clear b, clear c"
    assert read_instance(text) == Instance(
        ("a", "b", "c"), frozenset(plan(start)), frozenset(plan("on c b, clear c"))
    )
    assert read_instance(text.replace("(and (on C b) (clear c))", "(on C b)")).goal == {
        ("on", "c", "b")
    }
    held = text.replace("(handempty)", "(holding c)").replace("(ontable c)", "")
    assert ("holding", "c") in read_instance(held.replace("(clear c) )", ")")).initial


GOOD = (
    "(:objects a b) (:init (handempty) (ontable a) (clear a) (ontable b) (clear b)) "
    "(:goal (on a b))"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected \\(:objects, \\(:init and \\(:goal"),
        (GOOD.replace("(:init", "(:start"), "expected \\(:objects"),
        (GOOD.replace("objects a b", "objects a b g"), "block 'g' has no colour .* a, b, c, d"),
        (GOOD.replace("(on a b)", "(on a c)"), "\\(on a c\\) is no fact"),
        (GOOD.replace("(on a b)", "(over a b)"), "\\(over a b\\) is no fact"),
        (GOOD.replace("(on a b)", "(on a)"), "\\(on a\\) is no fact"),
        (GOOD.replace("(on a b)", "()"), "\\(\\) is no fact"),
        (GOOD.replace("(on a b)", "(and)"), "\\(:goal is empty"),
        (GOOD.replace("(on a b)", "(and (not (on a b)))"), "expected facts, .* got '\\(not"),
        (GOOD.replace("(on a b)", "(or (on a b) (on b a))"), "expected facts, .* got '\\(or"),
        (GOOD.replace("(ontable b)", ""), "is no state"),
        (GOOD.replace("(ontable b)", "(ontable b) (on b a)"), "is no state"),
        (GOOD.replace("(clear b)", ""), "is no state"),
        (GOOD.replace("(handempty)", ""), "is no state"),
        (GOOD.replace("(handempty)", "(handempty) (holding a)"), "is no state"),
    ],
)
def test_a_malformed_instance_is_refused(text: str, message: str) -> None:
    assert read_instance(GOOD).goal == {("on", "a", "b")}
    with pytest.raises(UserError, match=message):
        read_instance(text)


MOVES = "(unstack b a) (put-down b) (pick-up a) (stack a b)"

ONE_PLAN = [
    # PlanBench's wording, with tags and without.
    "[PLAN]\nunstack the blue block from on top of the red block\nput down the blue block\n"
    "pick up the red block\nstack the red block on top of the blue block\n[PLAN END]",
    "Here it is:\n\nunstack the blue block from on top of the red block\nput down the blue block\n"
    "pick up the red block\nstack the red block on top of the blue block\n\nThat is all.",
    # Lists and markdown.
    "1. Unstack the blue block from the red block.\n2. Put down the blue block on the table.\n"
    "3. Pick up the red block from the table.\n4. Stack the red block on the blue block.",
    "1. **Unstack** blue from red.  \n2. **Put down** blue. (Now my hand is empty)\n"
    "3. **Pick up** red: it is clear.\n4. **Stack** red onto blue!",
    "- `unstack(blue, red)`\n- `put_down(blue)`\n- `pick_up(red)`\n- `stack(red, blue)`",
    "* Unstack(blue, red)\n* PutDown(blue)\n* PickUp(red)\n* Stack(red, blue)",
    "Step 1: unstack block b from block a\nStep 2: put-down block b\n"
    "Step 3: pickup block a\nStep 4: stack block a on top of block b",
    "(1) UNSTACK BLUE OFF RED\n(2) PUT DOWN BLUE\n(3) PICK UP RED\n(4) STACK RED ATOP BLUE",
    # PDDL, and lines with several actions.
    "[PLAN] (unstack b a) (put-down b) (pick-up a) (stack a b) [PLAN END]",
    '["unstack b a", "put-down b", "pick-up a", "stack a b"]',
    "unstack b a -> put-down b -> pick-up a -> stack a b",
    "Unstack blue from red, then put down blue. Pick up red and stack red on blue.",
    # Words before every action, where no line opens with one.
    "First, unstack the blue block from the red block.\nThen put down the blue block.\n"
    "Now I pick up the red block.\nFinally, stack the red block on top of the blue block.",
    # Notes on the actions.
    "1. **Unstack(blue, red)**\n   - Unstack the blue block, since it is clear.\n"
    "   (Pick it up.)\n\n2. Put down blue\n   - Put down blue to free the hand.\n"
    "3. Pick up red\n(Stack red later.)\n4. Stack red on blue\n   - Pick up nothing more.",
    "1. unstack b a\n2. put down b\n3. pick up a\n4. stack a b\n\n**Why:**\n"
    "- First, unstack blue, which is clear.\n- Pick up the free red block.\n- Stack red on blue.",
    "1. Clear the red block\n   - unstack b a\n   - put down b\n"
    "2. Build\n   - pick up a\n   - stack a b",
    "1. unstack b a\n   2. put down b\n3. pick up a\n   4. stack a b",
    # Told again and again: once.
    "1. Unstack blue from red\n2. Put down blue\n3. Pick up red\n4. Stack red on blue\n\n"
    "**Plan:**\n1. unstack(blue, red)\n2. putdown(blue)\n3. pickup(red)\n4. stack(red, blue)",
    "(unstack b a) (put-down b) (pick-up a) (stack a b)\n" * 7,
    # The prompt's own list of actions is none.
    "I can pick up, put down, stack and unstack.\nPick up a block\nUnstack a block from on top of "
    "another block\nPut down a block\nStack a block on top of another block\n\n"
    "Stack 1: red, blue.\nStack: the goal.\n(unstack b a)\n(put-down b)\n(pick-up a)\n(stack a b)",
    # Tags: the first block that holds an action, up to the next tag or the end.
    "unstack b a\nput down b\npick up a\nstack a b\n[PLAN END]\n[STATEMENT]\n[PLAN]\npick up c",
    "pick up c\n[PLAN]\nunstack b a\nput down b\npick up a\nstack a b",
    "[plan]\nunstack b a\nput down b\npick up a\nstack a b\n[Plan End]\nOr: [PLAN]\npick up c",
    "A [PLAN] is due.\n[PLAN]\nunstack b a\nput down b\npick up a\nstack a b\n[PLAN]\npick up c",
    "[PLAN]\n[PLAN END]\n[PLAN]\nunstack b a\nput down b\npick up a\nstack a b\n[PLAN END]",
    "[PLAN]\nunstack b a\nput down b\nthrow away c\npick up a\nstack a b\n[PLAN END]",
    "[PLAN]\nunstack b a\nput down b\nput down nothing, my hand is empty\npick up a\nstack a b",
]


@pytest.mark.parametrize("text", ONE_PLAN)
def test_how_a_plan_may_be_told(text: str) -> None:
    found = read_plan(text)
    assert (str(found), found.broken) == (MOVES, None)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        # The name of an action, and no action.
        ("pick up the green block", "'pick up the green block'"),
        ("stack the red block on the table", "'stack the red block on the table'"),
        ("stack(red)", "'stack(red)'"),
        ("pick-up(red, blue)", "'pick-up(red, blue)'"),
        ("put down the red block on top of the blue block",) * 2,
        ("pick up the red block and the blue block",) * 2,
        ("pick up the red block with the blue block on top",) * 2,
        ("stack the red block under the blue block",) * 2,
        ("unstack the red block from the table",) * 2,
        ("unstack the red block from underneath the blue block",) * 2,
        ("put down the hand",) * 2,
        ("pick up the red block is not possible",) * 2,
        # It ends the plan, wherever it stands; what was read before it is told.
        ("1. pick up a\n2. stack a x\n3. stack a b", "(pick-up a) 'stack a x'"),
        ("pick up a, stack it on b", "(pick-up a) 'stack it on b'"),
        ("[PLAN]\npick up\u2028x\n[PLAN]\nstack \ud800\n", "'stack \\ud800'"),
        ("stack " + "long " * 100, "'stack " + "long " * 10 + "long'"),
    ],
)
def test_what_should_be_an_action_and_is_none_breaks_the_plan(text: str, answer: str) -> None:
    found = read_plan(text)
    shown = answer if answer.endswith("'") else f"'{answer}'"
    assert (found.broken is None, str(found)) == (False, shown)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[PLAN]",
        "[PLAN]\n[PLAN END]\npick up a\nstack a b",
        "Unstacking the blue block is not needed.",
        "So I have to unstack the blue block from the red block.",
        "Move the blue block to the table.\nPut the red block on the blue block.",
        "Pick up a block\nPut down a block",
        "(stack red onto blue, which is clear)",
    ],
)
def test_what_is_no_plan(text: str) -> None:
    found = read_plan(text)
    assert (found.actions, found.broken, str(found)) == ((), None, "")


def test_two_plans_without_tags_are_one_that_fails() -> None:
    first = "1. unstack b a\n2. stack b a\n\nNo, this is better:\n\n"
    assert str(read_plan(first + "1. unstack b a\n2. put down b")) == (
        "(unstack b a) (stack b a) (unstack b a) (put-down b)"
    )
    # One action is no plan that could be told again.
    assert str(read_plan("pick up a\npick up a")) == "(pick-up a) (pick-up a)"
    assert str(read_plan("[PLAN]\n" + "pick up a\nput down a\n" * 2)) == (
        "(pick-up a) (put-down a) (pick-up a) (put-down a)"
    )


WORDS = st.sampled_from(
    [
        "[PLAN]",
        "[PLAN END]",
        "pick up",
        "put down",
        "pick-up a",
        "(stack a b)",
        "unstack(red, blue)",
    ]
    + ["up", "put", "unstack", "stack", "the", "a", "b", "red", "blue", "block", "on", "from", "of"]
    + ["(", ")", ",", ".", "1.", "2)", "-", "*", "`", "[", "]", "_", "and", "then", "<answer>"]
    + ["\n", "\n\n", "\n  ", "\t", "\x00", "\ud800", "\u2028", "\u017ftack", "\u0130", "table"]
)


@given(st.one_of(st.text(), st.lists(WORDS).map(" ".join), st.lists(WORDS).map("".join)))
def test_any_text_is_read(text: str) -> None:
    found = read_plan(text)
    for name, *blocks in found.actions:
        assert name in ACTIONS
        assert len(blocks) == BLOCKS[name]
        assert set(blocks) <= set("abcdef")
    assert str(found).isascii()
    execute(found.actions, INSTANCE)


@given(st.lists(st.sampled_from(every_action("abcdef"))))
def test_an_answer_reads_as_itself(actions: list[Action]) -> None:
    told = "[PLAN]" + " ".join(f"({' '.join(action)})" for action in actions)
    assert read_plan(told).actions == tuple(actions)


@pytest.mark.parametrize("character", [*"a1 ()[-.\n", "\u0130", "\ud800"])
def test_a_megabyte_of_one_character(character: str) -> None:
    for text in (character * 10**6, "pick up" + character * 10**6, "1) " + f"x{character}" * 10**5):
        assert read_plan(text).actions == ()


@pytest.mark.parametrize(
    "text",
    [
        "[PLAN]" * 100_000,
        "[PLAN]\n[PLAN END]\n" * 50_000,
        ") ," * 300_000,
        ")" + " " * 10**6,
        "1. " * 300_000,
        "then " * 200_000,
    ],
)
def test_many_marks(text: str) -> None:
    assert read_plan(text).actions == ()


def test_a_plan_without_end() -> None:
    text = "pick up a, put down a, " * 8_000
    assert read_plan(text).actions == (("pick-up", "a"), ("put-down", "a"))
    found = read_plan("[PLAN]" + text)
    assert len(found.actions) == 16_000
    why = "goal not reached in 16000 actions: d is not on a"
    assert execute(found.actions, INSTANCE) == (False, why)
