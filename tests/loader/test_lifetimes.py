"""The loader under a trainer that is a process of its own: kill, Ctrl-C, torchrun."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter

from loader_helpers import AUGMENT, alive, digest, read_lines, start_trainer, until

import calotype

WALK = """
if len(sys.argv) > 1:
    loader.load_state_dict(json.loads(sys.argv[1]))
for _ in range(2):
    for batch in loader:
        print(json.dumps([digest(batch), loader.state_dict(), loader._source.pid]), flush=True)
        time.sleep({pause})
"""


def test_a_killed_run_resumes_with_the_same_bits(photos):
    dataset = calotype.text_to_image_dataset(path=photos, resolution=256, include=("id", "text"), seed=5, **AUGMENT)
    loader = calotype.Loader(dataset, 3, threads=2, in_process=True)
    expected = [digest(batch) for _ in range(2) for batch in loader]
    assert len(expected) >= 8

    killed = start_trainer(photos, WALK.format(pause=0.2))
    lines = read_lines(killed, 3)
    killed.kill()
    killed.communicate(timeout=30)
    _, state, loader_process = lines[-1]
    assert [line[0] for line in lines] == expected[:3]
    assert until(lambda: not alive(loader_process)), "the loader process outlived the trainer"

    body = WALK.format(pause=0).replace("sys.argv[1]", repr(json.dumps(state))).replace("len(sys.argv) > 1", "True")
    resumed = start_trainer(photos, body)
    out, err = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, err
    got = [json.loads(line)[0] for line in out.splitlines()]
    assert got[: len(expected) - 3] == expected[3:]


def test_ctrl_c_ends_both_processes_at_once(photos):
    # No jitter: torchvision's imports torch._dynamo, whose handler at exit makes Python exit with 1 after any Ctrl-C.
    plain = f"dataset = calotype.text_to_image_dataset(path={str(photos)!r}, resolution=256)\n"
    body = plain + "loader = calotype.Loader(dataset, 3, threads=2)\n" + WALK.format(pause=0.2)
    trainer = start_trainer(photos, body, start_new_session=True)
    ((_, _, loader_process),) = read_lines(trainer, 1)
    os.killpg(trainer.pid, signal.SIGINT)  # as a terminal does: to the whole group, the loader process included
    _, err = trainer.communicate(timeout=100)
    assert trainer.returncode == -signal.SIGINT
    assert err.strip().splitlines()[-1] == "KeyboardInterrupt"
    assert err.count("Traceback") == 1, err
    assert until(lambda: not alive(loader_process))


RANK = """
import json, os, sys, time
sys.path.insert(0, {here!r})
import torch
import calotype
torch.distributed.init_process_group("gloo")
dataset = calotype.text_to_image_dataset(path={photos!r}, resolution=256, include=("id",), seed=5)
loader = calotype.Loader(dataset, 2, threads=1)
assert loader.plan.world_size == 2 and loader.plan.rank == torch.distributed.get_rank()
steps = []
for batch in loader:
    shapes = [None, None]
    torch.distributed.all_gather_object(shapes, tuple(batch["img"].shape))
    steps.append([batch["id"], shapes])
with open({out!r} + f"/{{loader.plan.rank}}.json", "w") as file:
    json.dump([steps, len(loader)], file)
loader.close()
torch.distributed.destroy_process_group()
"""


def test_two_torchrun_ranks_cover_an_epoch_exactly_once(photos, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(RANK.format(here=os.path.dirname(__file__), photos=str(photos), out=str(tmp_path)))
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)],
        capture_output=True,
        text=True,
        timeout=150,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [len(steps) for steps, _ in ranks] == [length for _, length in ranks] == [3, 3]
    seen = Counter(id for steps, _ in ranks for ids, _ in steps for id in ids)
    assert seen == Counter(f"{n:02d}.jpg" for n in range(12))  # 4 to a bucket, 4 to a step: nothing comes twice
    for steps, _ in ranks:
        for _, shapes in steps:
            assert shapes[0] == shapes[1]
