"""Does `calotype caption` saturate a server? Compared with a bare client whose requests are prepared beforehand.

    python benchmarks/caption.py [--photos DIR] [--latency 1.0] [--slots 16] [--seconds 40] [--json FILE]

The server is a separate process on loopback. It answers like OpenAI's chat completions, each request after the same
time, `slots` of them at once; others wait. So its rate is at most slots / latency. Clients, in turns:

bare        `slots` kept-alive connections of asyncio that send prepared requests in sequence;
calotype    the whole command: photos are planned, read, decoded, resized, encoded and sent, answers are stored in the
            ledger and written to metadata.jsonl. Timed from call to return.

The photos are distinct (each of the 64 is repeated with another byte after its end, which decoders ignore): the ledger
would answer for equal images.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import multiprocessing
import shutil
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from _photos import photo_sets
from _process import machine, say

from calotype import captioning
from calotype.captioning.prepare_image import prepare_image

MODEL = "fixed-latency"
ANSWER = "A mountain lake at dawn, its far shore in mist, a single birch in the foreground on the left."


async def _serve(latency: float, slots: int, ready: Connection) -> None:
    room = asyncio.Semaphore(slots)
    models = json.dumps({"object": "list", "data": [{"id": MODEL}]}).encode()
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWER}}
    completion = json.dumps({"object": "chat.completion", "choices": [choice]}).encode()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0
                )
                await reader.readexactly(length)
                body = models
                if head.startswith(b"POST"):
                    async with room:
                        await asyncio.sleep(latency)
                    body = completion
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                )
                writer.write(body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, limit=1 << 20)
    ready.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def serve(latency: float, slots: int, ready: Connection) -> None:
    asyncio.run(_serve(latency, slots, ready))


async def _bare(port: int, slots: int, requests: list[bytes], count: int) -> None:
    indices = iter(range(count))

    async def one_connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for index in indices:
            writer.write(requests[index % len(requests)])
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            answer = json.loads(await reader.readexactly(length))
            assert answer["choices"][0]["message"]["content"] == ANSWER
        writer.close()

    await asyncio.gather(*(one_connection() for _ in range(slots)))


def bare(port: int, slots: int, requests: list[bytes], count: int) -> float:
    start = time.perf_counter()
    asyncio.run(_bare(port, slots, requests, count))
    return time.perf_counter() - start


def ready_request(photo: Path) -> bytes:
    """What the backend would send for a photo."""
    file = io.BytesIO()
    prepare_image(photo).save(file, "JPEG", quality=95, subsampling=0)
    url = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "Describe this image."}]
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 512}).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nHost: loopback\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def calotype(port: int, slots: int, photos: list[Path], count: int) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "photos"
        folder.mkdir()
        for index in range(count):
            target = folder / f"{index:04d}.jpg"
            shutil.copy(photos[index % len(photos)], target)
            with target.open("ab") as file:
                file.write(index.to_bytes(4, "big"))
        start = time.perf_counter()
        report = captioning.run(
            {"dataset": {"path": str(folder)}},
            backend="http",
            url=f"http://127.0.0.1:{port}/v1",
            concurrency=slots,
        )
        seconds = time.perf_counter() - start
        lines = (folder / "metadata.jsonl").read_text().splitlines()
        assert len(lines) == count and not report.failures, report
        return seconds


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--photos", type=Path, help="a folder of photographs to cut the sets from")
    arguments.add_argument("--cache", type=Path, default=Path(__file__).parents[1] / ".cache" / "benchmarks")
    arguments.add_argument("--sets", nargs="+", default=["small", "large"], choices=["small", "large"])
    arguments.add_argument("--latency", nargs="+", type=float, default=[1.0], help="seconds of each answer")
    arguments.add_argument("--slots", type=int, default=16, help="requests that the server works on at once")
    arguments.add_argument("--seconds", type=float, default=40.0, help="that a turn takes at best")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_args()
    print(f"{machine()}; {given.slots} requests at once, {given.rounds} rounds, turns of {given.seconds:g} s at best")
    results = []
    for photos in photo_sets(given.cache, given.photos, given.sets):
        requests = [ready_request(photo) for photo in photos.files]
        for latency in given.latency:
            count = int(given.seconds * given.slots / latency)
            here, there = multiprocessing.Pipe()
            server = multiprocessing.get_context("spawn").Process(
                target=serve, args=(latency, given.slots, there), daemon=True
            )
            server.start()
            port = here.recv()
            turns: dict[str, list[float]] = {"bare": [], "calotype": []}
            for number in range(given.rounds):
                say(f"{photos.name} photos, {latency} s an answer: round {number + 1} of {given.rounds}")
                turns["bare"].append(bare(port, given.slots, requests, count))
                turns["calotype"].append(calotype(port, given.slots, photos.files, count))
            server.terminate()
            ratios = [theirs / ours for theirs, ours in zip(turns["bare"], turns["calotype"], strict=True)]
            rates = {name: count / statistics.median(seconds) for name, seconds in turns.items()}
            print(
                f"{photos.name} photos ({photos.megapixels:.1f} MP), {latency:g} s an answer (at best "
                f"{given.slots / latency:.0f} images/s): bare {rates['bare']:.1f}, calotype {rates['calotype']:.1f} "
                f"images/s, {statistics.median(ratios):.3f} of it ({min(ratios):.3f} – {max(ratios):.3f})"
            )
            results.append({"photos": photos.name, "latency": latency, "slots": given.slots, **turns})
    if given.json:
        given.json.write_text(json.dumps({"machine": machine(), "results": results}, indent=1))


if __name__ == "__main__":
    main()
