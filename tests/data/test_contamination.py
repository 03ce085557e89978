import pytest

from marco.data.contamination import check_disjoint
from marco.errors import UserError
from marco.tasks.problem import Problem


def problems(prefix: str, *texts: str) -> list[Problem]:
    return [Problem(id=f"{prefix}{i}", problem=text, answer="4") for i, text in enumerate(texts)]


def check(train: list[Problem], test: list[Problem]) -> None:
    check_disjoint(train, test, train_name="trees", test_name="the test set")


def test_other_problems_pass():
    check(problems("a", "What is 2 + 2?"), problems("b", "What is 2 + 3?"))
    check([], problems("b", "What is 2 + 3?"))


@pytest.mark.parametrize(
    "test",
    [
        "What is 2 + 2?",
        "  what IS\n2\t+ 2? ",
        "What\u00a0is \uff12 + 2?",  # a no-break space and a full-width digit
    ],
)
def test_the_same_problem_is_found_in_other_clothes(test):
    with pytest.raises(UserError, match="1 problem.* of the test set are also in trees: b0 .= a0"):
        check(problems("a", "What is 2 + 2?"), problems("b", test))


def test_the_error_counts_all_and_names_the_first():
    texts = [f"What is {n}?" for n in range(5)]
    with pytest.raises(UserError) as error:
        check(problems("a", *texts), problems("b", *texts, "something else"))
    assert str(error.value) == (
        "5 problem(s) of the test set are also in trees: b0 (= a0), b1 (= a1), b2 (= a2), "
        "and 2 more; remove them from trees"
    )
