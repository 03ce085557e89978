"""Grow trees of thought for a task's training problems, and take datasets from them.

python generate.py task=gsm8k models=qwen_llama pattern=mixed
"""

from marco import cli, pipeline
from marco.config import Config
from marco.stages import Stage, materialise


def generate(config: Config, overrides: list[str]) -> None:
    pipeline.check_contamination(config)
    trees = pipeline.trees(config)
    print(f"trees: {materialise(trees, config.outputs) if isinstance(trees, Stage) else trees}")
    print(f"SFT chains: {materialise(pipeline.sft_data(config), config.outputs)}")
    print(f"preference pairs: {materialise(pipeline.pair_data(config), config.outputs)}")


if __name__ == "__main__":
    cli.run(generate, config_name="generate")
