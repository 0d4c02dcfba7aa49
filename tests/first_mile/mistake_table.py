"""Slips that people make at the command line, each with its exit status and what the answer must say.

The test and `benchmarks/mistakes.py` read this table. As a program it runs lines of it in one process, and prints what
each one gave, with the heavy packages that were imported by then, as JSON.
"""

import contextlib
import io
import json
import shlex
import sys
import zipfile

HEAVY = ("torch", "diffusers", "transformers", "pyarrow", "datasets", "PIL")

KEY = "did you mean 'train.learning_rate'?"
MODEL = "did you mean 'flux.1-dev', 'flux.1-schnell' or 'flux.2-dev'?"
NO_PATH = "no/such/folder: there is no such file or folder"
NO_STORE = "nowhere: there is no store of encodings here"

AT_ONCE = {  # found before anything heavy is imported; all are wrong use, status 2
    # -- paths
    "info no/such/folder": NO_PATH,
    "check no/such/folder": NO_PATH,
    "preview no/such/folder": NO_PATH,
    "studio no/such/folder": NO_PATH,
    "caption no/such/folder": NO_PATH,
    "convert no/such/folder out --to csv": NO_PATH,
    "encode no/such/folder --model sdxl": NO_PATH,
    "train no/such/folder --model sdxl": NO_PATH,
    "train photos --model qwen-image": "calotype train does not train qwen-image (family qwen-image)",
    "bench no/such/folder --model sdxl": NO_PATH,
    "distill no/such/folder student=x": NO_PATH,
    "init no/such/folder --model sdxl --trigger x": "no/such/folder: there is no such folder or data file",
    "info phots": "phots: there is no such file or folder; did you mean 'photos'?",
    "cache ls nowhere": NO_STORE,
    "cache verify nowhere": NO_STORE,
    "cache prune nowhere": NO_STORE,
    "cache export nowhere out": NO_STORE,
    # -- config files
    "check missing.yaml": "missing.yaml: there is no such config file",
    "check folder.yaml": "folder.yaml: can't be read: it is a folder",
    "check list.yaml": "list.yaml: expected a mapping (key: value) at the top, found a list",
    "check tab.yaml": "tab.yaml, line 2, column 1: not valid YAML: found a tab; expected spaces in front of a key",
    "check twice.yaml": "twice.yaml, line 3, column 3: not valid YAML: found duplicate key path",
    # -- keys and values
    "info photos lr=1e-4": KEY,
    "check photos lr=1e-4": KEY,
    "preview photos lr=1e-4": KEY,
    "studio photos lr=1e-4": KEY,
    "caption photos lr=1e-4": KEY,
    "convert photos out --to csv clumns=a": "convert: unknown option 'clumns'; did you mean 'columns'?",
    "encode photos lr=1e-4 --model sdxl": KEY,
    "train photos lr=1e-4 --model sdxl": KEY,
    "bench photos lr=1e-4 --model sdxl": KEY,
    "distill photos max_stpes=1": "did you mean 'train.max_steps'?",
    "config show photos lr=1e-4": KEY,
    "config keys trian": "a config has no section 'trian'; did you mean 'train'?",
    "info photos rank=8": "2 options may be meant; write 'loader.rank=8' or 'train.lora_rank=8'",
    "info photos 'batch_size=\"4\"'": "loader.batch_size: found '4', expected a whole number, 1 or more",
    "info photos batch_size": "expected key=value, such as loader.batch_size=4",
    "info photos 'include=[id,'": "override 'include=[id,': '[id,' is not a YAML value",
    # -- flags
    "info photos --resolution 512": "written without dashes: 'resolution=512'",
    "train photos --lr=1e-4": "written without dashes: 'learning_rate=1e-4'",
    "train photos --rank 8": "written without dashes: 'loader.rank=8' or 'train.lora_rank=8'",
    "init photos --model sdxl --trigger x resolution=512": "(resolution=512); this command takes no options of the",
    "init photos --model sdxl --trigger x --resolution 512": "no flag --resolution; this command takes no options of",
    "init photos --model sdxl --trigger a dog": "(dog); a text with spaces is quoted: --trigger 'a dog'",
    "train --config photos.yaml": "the config stands first, without a flag: calotype train photos.yaml",
    "init photos --modle sdxl --trigger x": "there is no flag --modle; did you mean '--model'?",
    "check photos --ranks 0": "Invalid value for '--ranks'",
    "caption photos --mode fil": "Invalid value for '--mode': 'fil' is not one of 'fill', 'add', 'replace'",
    "preview photos -o page.pdf": "'page.pdf'; expected a name that ends in .html (the page) or .png",
    "bench photos --model sdxl --strategies nonee": "strategies: unknown option 'nonee'; did you mean 'none'?",
    "convert photos out --to parquet --shard-size big": "--shard-size: found 'big'; expected a number of bytes",
    "train photos --changed-dataset": "--changed-dataset: has no effect without --resume",
    # -- models
    "info photos --model flux": MODEL,
    "check photos --model flux": MODEL,
    "preview photos --model flux": MODEL,
    "studio photos --model flux": MODEL,
    "encode photos --model flux": MODEL,
    "train photos --model flux": MODEL,
    "bench photos --model flux": MODEL,
    "init photos --model flux --trigger x": MODEL,
    "train photos model=sdxl1.0": "did you mean 'sdxl'?",
    "train photos --model ./pipeline": "no model './pipeline' and no folder './pipeline'",
    "train photos": "nothing says for which model",
    "distill photos": "distill.student: the model that is to learn was expected",
    # -- commands
    "trian photos": "No such command 'trian'. Did you mean 'train'?",
    "photos": "Did you mean 'calotype info photos'?",
    "config shwo photos": "No such command 'shwo'. Did you mean 'show'?",
    "info": "Missing argument",
    "convert photos out": "Missing option '--to'. Choose from: imagefolder, jsonl, ",
}

DATA = {  # found when the data is read: problems, status 1
    "info empty": "empty: no images found",
    "preview empty": "empty: no images found",
    "convert empty out --to csv": "empty: no images found",
    "studio empty --no-open": "empty: no images found",
    "caption empty --url http://localhost:1/v1 --model x": "empty: no images found",
    "info packed.zip": "packed files are not read. Unpack it: unzip ",
    "convert packed.zip out --to csv": "packed files are not read. Unpack it: unzip ",
}


def write_mistakes(folder):
    """The files that the lines name."""
    from PIL import Image

    (folder / "photos").mkdir()
    for number in range(3):
        Image.new("RGB", (96, 64), (90, 60 * number, 30)).save(folder / "photos" / f"{number}.jpg")
        (folder / "photos" / f"{number}.txt").write_text(f"photo {number}")
    (folder / "empty").mkdir()
    (folder / "folder.yaml").mkdir()
    (folder / "list.yaml").write_text("- a\n")
    (folder / "tab.yaml").write_text("dataset:\n\tpath: photos\n")
    (folder / "twice.yaml").write_text("dataset:\n  path: photos\n  path: other\n")
    with zipfile.ZipFile(folder / "packed.zip", "w") as packed:
        packed.writestr("a.txt", "a")


def run(line):
    """The status, the output and the errors of a line, in this process."""
    from calotype.cli import main

    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["calotype", *shlex.split(line)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            status = ended.code
    return {
        "status": status,
        "out": out.getvalue(),
        "err": err.getvalue(),
        "heavy": [name for name in HEAVY if name in sys.modules],
    }


if __name__ == "__main__":
    print(json.dumps({line: run(line) for line in json.load(sys.stdin)}))
