"""Two ranks under one torchrun: a signal, a full disk, separate folders, a kill. Both end each time, and say why."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from train_helpers import checkpoints, config, make_folder

from calotype import encodings

RANK = """
import os, resource, sys
from calotype.cli import main

rank, config, own = int(os.environ["RANK"]), sys.argv[1], sys.argv[2]
with open(f"{own}/pid-{rank}", "w") as file:
    file.write(str(os.getpid()))

def train(name, *arguments):
    sys.argv = ["calotype", "train", config, *arguments]
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    with open(f"{own}/{name}-{rank}", "w") as file:
        file.write(str(code))
    if rank == 0:  # alone: lines of two processes can become one
        print(f"ended {name}", flush=True)
        print(f"ended {name}", file=sys.stderr, flush=True)

train("term")
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
if rank == 0:  # the disk is full for the rank that saves
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
train("full", "--resume", "checkpoint_every=1")
resource.setrlimit(resource.RLIMIT_FSIZE, limit)
os.chdir(own if rank else os.path.dirname(config))  # as on two machines without a shared disk
train("apart", "--resume", "output_dir=out")
train("kill", "--resume")
"""
pytestmark = pytest.mark.timeout(900)  # two ranks start four times; on a busy machine that takes minutes

COMMANDS = ("term", "full", "apart", "kill")


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Standard error of each of four commands, {(command, rank): status}, and the output folder."""
    folder = tmp_path_factory.mktemp("ranks")
    photos, options = make_folder(folder / "photos"), {"max_steps": 5000, "loader": {"batch_size": 1}}
    made = config(photos, output_dir=str(folder / "out"), **options)
    encodings.run({key: made[key] for key in ("model", "dataset", "encodings")}, device="cpu")
    (folder / "config.yaml").write_text(yaml.safe_dump(made))
    (folder / "own").mkdir()
    (folder / "rank.py").write_text(RANK)
    torchrun = [Path(sys.executable).parent / "torchrun", "--nproc-per-node=2", "--standalone", "--monitor-interval=2"]
    done, signals = 0, {0: signal.SIGTERM, 3: signal.SIGKILL}  # after so many commands, to rank 1
    with (
        (folder / "stderr").open("w") as errors,
        subprocess.Popen(
            [*torchrun, folder / "rank.py", folder / "config.yaml", folder / "own"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as run,
    ):
        for line in run.stdout:
            done += line.startswith("ended ")
            if line.startswith("step ") and (number := signals.pop(done, None)):
                os.kill(int((folder / "own" / "pid-1").read_text()), number)
    codes = {
        (name, rank): int(file.read_text())
        for name in COMMANDS
        for rank in (0, 1)
        if (file := folder / "own" / f"{name}-{rank}").exists()
    }
    rest, said = (folder / "stderr").read_text(), {}
    for name in COMMANDS:
        said[name], _, rest = rest.partition(f"ended {name}\n")
    return said, codes, folder / "out"


def test_sigterm_to_one_rank_saves_a_checkpoint_and_ends_both(ended):
    said, codes, output = ended
    assert codes["term", 0] == codes["term", 1] == 143
    (saved,) = checkpoints(output)
    assert f"saved in {output / 'checkpoints' / saved}. To continue: calotype train" in said["term"]


def test_a_checkpoint_that_rank_0_can_t_write_ends_both(ended):
    said, codes, output = ended
    assert codes["full", 0] == codes["full", 1] == 2
    assert f"calotype: {output / 'checkpoints'}: no room for the checkpoint of step " in said["full"]
    assert len(checkpoints(output)) == 1  # the good one


def test_a_rank_that_sees_another_folder_ends_both(ended):
    said, codes, _ = ended
    assert codes["apart", 0] == codes["apart", 1] == 2
    assert "is the checkpoint of rank 0, and rank 1 on " in said["apart"] and "that all ranks share" in said["apart"]


def test_a_rank_that_is_killed_ends_the_other_by_itself(ended):
    said, codes, _ = ended
    assert "calotype: rank 0 of 2: another rank has ended" in said["kill"] and "--resume continues" in said["kill"]
    assert codes["kill", 0] and ("kill", 1) not in codes
