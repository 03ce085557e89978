import json
import shutil

import pytest

from marco.errors import UserError
from marco.reporting.__main__ import main
from marco.reporting.compare import compare_scores, text


def compared(a, b):
    a, b = ([side] if not isinstance(side, list) else side for side in (a, b))
    return compare_scores(a, b, resamples=1000, seed=0)


def test_a_beats_b_where_it_holds(score):
    a, b = score("sft", correct=88, keeps=True), score("dpo", correct=80, silent=3, keeps=True)
    told = compared(a, b)
    found = told["tasks"]["arithmetic"]["accuracy"]
    assert (found["a"], found["b"], found["n"]) == (0.88, 0.8, 100)
    assert (found["more_a"], found["more_b"], found["test"]) == (8, 0, "mcnemar")
    assert (found["p"], found["noise"]) == (2 / 2**8, "problems")
    assert json.loads(json.dumps(told)) == told
    printed = text(told)
    assert "A: sft (seed 0)\nB: dpo (seed 0)\n\narithmetic, 100 problems\n" in printed
    assert "accuracy: A 88.0%, B 80.0%, A - B +8.0 points, 95 % interval [" in printed
    assert (
        "with A on 8 problems, with B on 0; McNemar's exact test: p 0.0078, mid-p 0.0039" in printed
    )
    assert "A beats B." in printed
    # Three problems without an answer are too few to tell.
    assert "The difference is within noise." in printed
    assert "B beats A." in text(compared(b, a))


def test_nothing_beats_what_it_does_not(score):
    a, b = score("sft", correct=84, keeps=True), score("dpo", correct=80, keeps=True)
    told = compared(a, b)["tasks"]["arithmetic"]
    assert told["accuracy"]["verdict"] == "The difference is within noise."
    assert told["no_answer"]["verdict"] == "No difference seen."
    assert "beats" not in text(compared(a, b))
    again = compared(a, a)["tasks"]["arithmetic"]["accuracy"]
    assert (again["p"], again["verdict"]) == (1, "No difference seen.")
    assert again["interval"] == pytest.approx([-0.037, 0.037], abs=1e-4)  # 3.84 / 103.84
    assert "A - B +0.0 points, 95 % interval [-3.7, +3.7]" in text(compared(a, a))


def test_official_metrics_are_compared_on_the_same_problems(talk_score):
    # English 30/40 and 22/40, Chinese 6/10 in both; each language counts once.
    a = talk_score("sft", english="+" * 30 + "-" * 10, chinese="+" * 6 + "-" * 4)
    b = talk_score("dpo", english="+" * 22 + "-" * 18, chinese="-" * 4 + "+" * 6)
    told = compared(a, b)
    whole, en, zh = (
        told["tasks"][f"multi_if {part}"]["accuracy"] for part in ("official", "en", "zh")
    )
    assert (whole["difference"], whole["n"]) == (pytest.approx(8 / 40 / 2), 50)
    assert (en["difference"], en["n"], en["more_a"], en["more_b"]) == (
        pytest.approx(8 / 40),
        40,
        8,
        0,
    )
    assert (en["test"], en["verdict"]) == ("drawn_sign_flips", "A beats B.")
    assert en["p"] == pytest.approx(2 / 2**8, abs=0.01)
    assert (zh["difference"], zh["more_a"], zh["more_b"]) == (pytest.approx(0), 4, 4)
    # Half of the figure is Chinese, where the two differ on most problems.
    assert whole["verdict"] == zh["verdict"] == "The difference is within noise."
    assert "multi_if en, 40 problems" in text(told) and "sign flips, drawn: p 0." in text(told)
    # The task's own verdicts pool the languages, and see less of a difference.
    assert told["tasks"]["multi_if"]["accuracy"]["difference"] == pytest.approx(8 / 50)


def test_silence_is_told_as_silence(score):
    a, b = score("sft", correct=80, silent=20, keeps=True), score("dpo", correct=80, keeps=True)
    told = compared(a, b)["tasks"]["arithmetic"]["no_answer"]
    assert told["verdict"] == "A gives no answer more often than B."


def test_seeds_are_compared_together_and_their_noise_is_told(score):
    a = [score("sft", seed, correct=k, keeps=True) for seed, k in enumerate([70, 60, 80])]
    b = [score("dpo", seed, correct=k, keeps=True) for seed, k in enumerate([52, 56])]
    told = compared(a, b)
    found = told["tasks"]["arithmetic"]["accuracy"]
    assert told["A"]["seeds"] == [0, 1, 2] and found["noise"] == "problems and seeds"
    assert found["over_seeds"][0] < 0 < found["over_problems"][0]
    assert found["verdict"] == "The difference is within noise."
    assert "A: sft (seed 0, 1, 2)" in text(told)


def test_what_cannot_be_compared_is_told(score, tmp_path):
    sft, dpo = score("sft", correct=80, keeps=True), score("dpo", correct=80, n=90, keeps=True)
    with pytest.raises(UserError, match="10 problems are only in one of .*sft-0.* the first is"):
        compared(sft, dpo)
    with pytest.raises(UserError, match="sft-1-arithmetic has no samples.jsonl"):
        compared(score("sft", 1, correct=80), sft)
    with pytest.raises(UserError, match="A holds 2 rows .*name the scores folders of one"):
        compared(tmp_path / "scores", sft)
    with pytest.raises(UserError, match="A holds 0 rows"):
        compared([], sft)
    with pytest.raises(UserError, match="share no task"):
        compared(sft, score("sft", correct=8, task="gsm8k", keeps=True))
    with pytest.raises(UserError, match="0 resamples"):
        compare_scores([sft], [sft], resamples=0, seed=0)


def test_command_line_prints_and_writes(score, tmp_path, capsys):
    a = [score("sft", seed, correct=88, keeps=True) for seed in (0, 1)]
    b = score("dpo", correct=80, keeps=True)
    folders = [",".join(map(str, a)), str(b)]
    assert main(["compare", *folders, "--json", str(tmp_path / "told.json")]) == 0
    assert "A beats B." in capsys.readouterr().out
    assert json.loads((tmp_path / "told.json").read_text())["resamples"] == 10_000
    assert main(["compare", *folders, "--json", str(tmp_path / "no" / "told.json")]) == 2
    assert capsys.readouterr().err.startswith("error: cannot write")
    shutil.rmtree(b)
    assert main(["compare", *folders]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1
