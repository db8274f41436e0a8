"""Training jobs for tests: a program that trains in milliseconds, one that fails, and one row to train on."""

from pathlib import Path

from blocks.trainers.base import TrainingJob

HEALTHY = """
import json, os, pathlib, time
print("reading", sorted(os.listdir(os.environ["SM_CHANNEL_TRAIN"])))
time.sleep(float(json.loads(os.environ["SM_HPS"]).get("sleep", "0")))
runs = pathlib.Path(os.environ["SM_CHANNEL_TRAIN"]).resolve().parent / "runs"
runs.write_text((runs.read_text() if runs.exists() else "") + "x")
pathlib.Path(os.environ["SM_MODEL_DIR"], "hyperparameters.json").write_text(os.environ["SM_HPS"])
print("done")
"""
FAILING = "import sys\nprint('column fee is bad', file=sys.stderr)\nsys.exit(3)\n"


def a_job(folder: Path, source: str, name: str = "churn-1", **more: object) -> TrainingJob:
    (folder / "program").mkdir(parents=True, exist_ok=True)
    (folder / "program" / "train.py").write_text(source)
    (folder / "train").mkdir(exist_ok=True)
    (folder / "train" / "part-0.csv").write_text("a,b\n1,2\n")
    return TrainingJob(name, folder / "program", {"train": folder / "train"}, {"rounds": "3"}, **more)
