"""Grow trees of thought for a task's training problems, and take datasets from them.

python generate.py task=gsm8k models=qwen_llama pattern=mixed
"""

from functools import partial

from marco import cli, pipeline
from marco.cards import hub
from marco.config import Config
from marco.stages import Stage, materialise


def generate(config: Config, _: cli.Job) -> None:
    if config.push_to_hub:
        hub.check_access(config.push_to_hub)
    pipeline.check_contamination(config)
    make = partial(materialise, outputs=config.outputs, cluster=config.cluster.model_dump())
    if config.search.dry_run:
        from marco.search.estimate import estimate_lines

        folder = make(pipeline.estimate(config))
        print("\n".join([*estimate_lines(folder), f"estimate: {folder}"]))
        return
    made = {
        "trees": pipeline.trees(config),
        "SFT chains": pipeline.sft_data(config),
        "preference pairs": pipeline.pair_data(config),
    }
    for name, value in made.items():
        place = make(value) if isinstance(value, Stage) else value
        print(f"{name}: {place}")
        if config.push_to_hub and isinstance(value, Stage) and value.kind == "dataset":
            print(f"pushed: {hub.push(place, f'{config.push_to_hub}/{place.name}')}")


if __name__ == "__main__":
    cli.run(generate, config_name="generate")
